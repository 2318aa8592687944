"""Installs a distribution of a user's, as he does, into a directory that tests put on the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "plugins" / "dspex_example"


def install(target: Path, source: Path = SOURCE) -> None:
    """Build a distribution, by default the example of a plug-in, and unpack it into `target`, without the network."""
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
