"""Programs in Node, with the packages that they need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def installed(program: Path, directory: Path) -> Path:
    """A copy of a program's folder, with the packages of its `package.json`."""
    copy = directory / program.name
    shutil.copytree(program, copy, ignore=shutil.ignore_patterns("node_modules"))
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    subprocess.run(npm, cwd=copy, check=True, timeout=240, stdin=subprocess.DEVNULL)
    return copy
