"""Tests the lowest and the newest versions that both pyproject.toml files allow: `make versions`.

For each installed Python it creates an environment with the lowest versions, and one with the newest, under
`.venv/versions`. In each it runs a part of the tests, including the main job on real servers, one environment after the
other and with a time limit.

    python -m deploy.versions [--python 3.11]... [--end lowest|newest]... [-- PYTEST_ARGUMENT...]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
ENDS: Final = ("lowest", "newest")
BUILD: Final = ("hatchling", "editables")
TOOLS: Final = (
    "aiosqlite",
    "cloudevents>=2",
    "fastapi",
    "greenlet",
    "hypothesis",
    "jsonschema",
    "markdown-it-py",
    "pytest",
    "pytest-timeout",
    "pyyaml",
    "uvicorn",
)
"""Other packages for the tests, in their newest versions."""
TESTS: Final = (
    "tests/unit",
    "tests/contract/test_adapters.py",
    "tests/contract/test_publishers.py",
    "tests/integration/test_dspy_insides.py",
    "tests/integration/test_native.py",
    "tests/integration/test_publisher.py",
    "tests/integration/test_answer_size.py",
    "tests/acceptance/test_main_job.py",
)
INSTALL_SECONDS: Final = 1_200
TEST_SECONDS: Final = 2_400

_LOWER = re.compile(r"^\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+)")


def requirements() -> list[str]:
    """The requirements of both distributions, with all extras except the one for authors of adapters."""
    found = set[str]()
    for pyproject in (ROOT / "pyproject.toml", ROOT / "messages" / "pyproject.toml"):
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        found.update(project["dependencies"])
        optional = project["optional-dependencies"]
        found.update(*(lines for part, lines in optional.items() if part != "contract"))
    return sorted(found - {"dspex"})


def lowest(wanted: Iterable[str]) -> list[str]:
    """The lower bounds as constraints; the higher one if our two differ. Each is a released version."""
    found = dict[str, str]()
    for match in filter(None, map(_LOWER.match, wanted)):
        found[match[1]] = max(found.get(match[1], "0"), match[2], key=_number)
    return [f"{name}=={version}" for name, version in found.items()]


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def find(version: str) -> str | None:
    """The interpreter of a Python version, on PATH or of pyenv."""
    homes = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"), reverse=True)
    candidates = [found for found in (shutil.which(f"python{version}"), *map(str, homes)) if found]
    for candidate in candidates:
        command = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    return None


def uv() -> Path:
    """The installer uv, in its own environment. pip needs half an hour to resolve the lowest versions."""
    home = ROOT / ".venv" / "versions" / "uv"
    if not (home / "bin" / "uv").exists():
        _run([ROOT / "deploy" / "virtual_environment.sh", sys.executable, home])
        _run([home / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "uv"])
    return home / "bin" / "uv"


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, timeout=INSTALL_SECONDS)


def install(interpreter: str, home: Path, end: str) -> Path:
    """Create an environment with this end of every range. Returns its interpreter.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: the environment cannot be created.
    """
    _run([ROOT / "deploy" / "virtual_environment.sh", interpreter, home])
    wanted = requirements()
    constraints = home / "constraints.txt"
    constraints.write_text("\n".join(lowest(wanted) if end == "lowest" else []) + "\n", encoding="utf-8")
    python = home / "bin" / "python"
    add: list[str | Path] = [uv(), "pip", "install", "--quiet", "--python", python, "--no-config"]
    _run([*add, "--constraint", constraints, *wanted, *BUILD, *TOOLS])
    _run([*add, "--no-deps", "--no-build-isolation", "-e", "./messages", "-e", "."])
    _run([uv(), "pip", "check", "--python", python])
    return python


def attempt(version: str, end: str, arguments: list[str]) -> str:
    """Install and test one environment. Returns the outcome as text."""
    interpreter = find(version)
    if interpreter is None:
        return "NOT TRIED: there is no such interpreter on this machine"
    try:
        python = install(interpreter, ROOT / ".venv" / "versions" / f"{version}-{end}", end)
        tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or TESTS)]
        code = subprocess.run(tests, cwd=ROOT, check=False, timeout=TEST_SECONDS).returncode
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return f"FAILED: {error}"
    return "passed" if code == 0 else f"FAILED: pytest ended with {code}"


def main() -> None:
    """Test the requested versions, and print the outcome of each."""
    parser = argparse.ArgumentParser(description="Try both ends of every range of versions.")
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--end", action="append", choices=ENDS)
    parser.add_argument("tests", nargs="*", help="instead of the part that is chosen")
    asked = parser.parse_args()
    results = dict[str, str]()
    for version in asked.python or PYTHONS:
        for end in asked.end or ENDS:
            name = f"Python {version}, {end}"
            print(f"== {name}", flush=True)
            results[name] = attempt(version, end, asked.tests)
    for name, result in results.items():
        print(f"{name}: {result}")
    sys.exit(any(result != "passed" for result in results.values()))


if __name__ == "__main__":
    main()
