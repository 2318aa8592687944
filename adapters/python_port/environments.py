"""Named environments: the Pythons, each with packages of its own, that an operator offers to programs.

Of the worker's packages an environment sees none: the process that forks its children runs on the environment's Python,
and is told where DSPex's own packages are (`adapters.python_port.bootstrap`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import adapters
import dspex
from adapters import versions
from adapters.port import MAX_QUOTE, NotHere
from adapters.python_port.limits import Limits

FIELD: Final = "environment"
SETTING: Final = "DSPEX_ENVIRONMENTS"

BOOTSTRAP: Final = Path(__file__).with_name("bootstrap.py")
"""Run in other processes, and never imported here: it loads DSPy."""
VARIABLES: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "DSPY_CACHEDIR": str(Path(os.devnull) / "dspy"),
}
"""Variables of every environment. A DSPy before 3.3 imports LiteLLM, which reads the first two then (for what they do
see `adapters.native.setup`); one before 3.4 opens its disk cache: there is none.
"""
CHECK: Final = "check"
"""Its argument that asks what an environment has; otherwise the server starts."""
CHECK_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Environment:
    """A Python for programs.

    Attributes:
        python: the path of the interpreter, as a virtual environment has it in `bin`.
    """

    name: str
    python: str

    def broken(self, why: str) -> NotHere:
        """The error for an environment whose Python does not run programs. That of another worker may."""
        return NotHere(f"{FIELD}: '{self.name}' cannot be used: {self.python}: {why}")

    def check(self, limits: Limits) -> Found:
        """What the environment has. Starts its Python, and imports nothing of it.

        Raises:
            NotHere: it cannot be used.
        """
        try:
            ended = subprocess.run(
                [*command_of(self), CHECK],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                env=limits.environment_of(os.environ),
                timeout=CHECK_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self.broken(reason(error)) from None
        if ended.returncode != 0:
            raise self.broken(last_line(ended.stderr.decode(errors="replace")) or f"it exited with {ended.returncode}")
        try:
            # What a package of the environment prints when Python starts comes before it.
            told = json.loads(ended.stdout.splitlines()[-1])
            return Found(told["python"], told["dspy"], tuple(told["modules"]))
        except (IndexError, ValueError, KeyError, TypeError):
            raise self.broken("it is no Python") from None


@dataclass(frozen=True)
class Found:
    """What an environment has: the versions of Python and DSPy, and the modules that are registered there."""

    python: str
    dspy: str
    modules: tuple[str, ...]

    def __str__(self) -> str:
        modules = f", modules {', '.join(self.modules)}" if self.modules else ""
        return f"Python {self.python}, DSPy {self.dspy}{modules}"


def command_of(environment: Environment | None) -> list[str]:
    """The command that starts the server of children in an environment, without its last arguments.

    `-I` keeps variables of the environment, the working directory and the user's own packages out of it.
    """
    needs: dict[str, Any]
    if environment is None:
        python, needs = sys.executable, {"path": sys.path}
    else:
        packages = {package.__name__: str(Path(package.__path__[0]).parent) for package in (adapters, dspex)}
        python, needs = environment.python, {"packages": packages, "ranges": versions.of_environments()}
        needs["variables"] = VARIABLES
    return [python, "-I", str(BOOTSTRAP), json.dumps(needs)]


def find(pythons: Mapping[str, str], name: str) -> Environment:
    """The environment of this name.

    Raises:
        NotHere: this worker has none.
    """
    if name not in pythons:
        known = ", ".join(pythons) or "none"
        advice = f"an operator can give it by {SETTING} on the workers that have it"
        raise NotHere(f"{FIELD}: there is no '{name}' on this worker (there is: {known}): {advice}")
    return Environment(name, pythons[name])


def reason(error: OSError | subprocess.TimeoutExpired) -> str:
    """Why a Python could not be started."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {error.timeout:g} s"
    return f"it cannot be started: {error.strerror or error}"


def last_line(text: str) -> str:
    """The last line of what a process wrote."""
    lines = [line.strip() for line in text[-4 * MAX_QUOTE :].splitlines() if line.strip()]
    return lines[-1][:MAX_QUOTE] if lines else ""
