"""Commands of the command line, called in this process."""

import inspect
from typing import Any

from click.testing import CliRunner


def runner() -> CliRunner:
    """What is printed and what is said of errors are two texts: before click 8.2 that has to be asked for."""
    apart: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
    return CliRunner(**apart)
