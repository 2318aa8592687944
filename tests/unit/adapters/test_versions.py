"""What is installed is in the ranges that are declared, or nothing starts; and every range has both ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from adapters.versions import within
from deploy.versions import lowest

ROOT = Path(__file__).resolve().parents[3]

REGISTRY = "from adapters.registry import AdapterRegistry as R; r = R(); r.get('mock'); r.get('{}')"


def declared(pyproject: Path) -> list[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    found = [*project["dependencies"], *(line for part in optional if part != "contract" for line in optional[part])]
    return [line for line in found if line != "dspex"]


@pytest.mark.parametrize("pyproject", ["pyproject.toml", "messages/pyproject.toml"])
def test_every_range_has_both_ends(pyproject: str) -> None:
    for line in declared(ROOT / pyproject):
        assert re.fullmatch(r"[a-z0-9-]+(\[binary\])?>=[0-9.]+,<[0-9.]+", line), line


def test_both_distributions_agree() -> None:
    def ranges(pyproject: str) -> dict[str, str]:
        return dict(line.split(">=") for line in declared(ROOT / pyproject))

    server, messages = ranges("pyproject.toml"), ranges("messages/pyproject.toml")
    assert messages.pop("sqlalchemy") == "2.0.36,<2.2"  # a producer's outbox has no need of the server's 2.1
    assert {name: server[name] for name in messages} == messages


def test_the_lowest_of_each_is_tried() -> None:
    assert lowest(["psycopg[binary]>=3.2.3,<4", "redis>=5,<9", "dspex"]) == ["psycopg==3.2.3", "redis==5"]


@pytest.mark.parametrize(
    ("version", "allowed"),
    [
        ("3.3.9", False),
        ("3.4.0rc1", False),
        ("3.4", True),
        ("3.4.0", True),
        ("3.4.1.post1", True),
        ("3.4.1rc1", True),
        ("3.10", False),
        ("3.5", False),
        ("3.5.0", False),
        ("3.5.0b1", False),
        ("unknown", True),
    ],
)
def test_versions_in_a_range(version: str, allowed: bool) -> None:
    assert within(version, ">=3.4,<3.5") is allowed
    assert within(version, "<3.5,>=3.4") is allowed


def test_without_a_range_all_are_allowed() -> None:
    assert within("0.1", "")


def distribution(home: Path, name: str, version: str, *requires: str) -> None:
    folder = home / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where these distributions are found before the real ones."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(home), *sys.path])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def start(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(home, f"import sys; from workers.cli.start import main; sys.argv[1:] = {arguments!r}; main()")


@pytest.mark.parametrize("arguments", [("worker",), ("run", "question -> answer"), ("migrate",)])
def test_nothing_starts_with_a_version_out_of_range(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    distribution(tmp_path, "dspex-server", "0.1.0", "dramatiq<3,>=2.0", "redis<9,>=5", "no-such-package>=1")
    distribution(tmp_path, "dramatiq", "1.18.0")
    done = start(tmp_path, *arguments)
    assert done.returncode == 2
    needed = "dramatiq>=2.0,<3"
    assert done.stderr == f"dspex: dramatiq 1.18.0 is installed, and DSPex needs {needed}: pip install '{needed}'\n"
    assert done.stdout == ""


def test_dspy_is_looked_at_where_it_is_used(tmp_path: Path) -> None:
    distribution(tmp_path, "dspex-server", "0.1.0", "dspy<3.5,>=3.4", "dspy-ai<3.5,>=3.4")
    distribution(tmp_path, "dspy", "3.1.0")
    distribution(tmp_path, "dspy-ai", "3.4.1")
    assert start(tmp_path, "--help").returncode == 0
    for adapter in ("native", "python_port"):
        done = run(tmp_path, REGISTRY.format(adapter))
        assert done.stderr.splitlines()[-1].endswith(
            f"adapter_type: '{adapter}' cannot be used: dspy 3.1.0 is installed, and DSPex needs dspy>=3.4,<3.5: "
            "pip install 'dspy>=3.4,<3.5'"
        )
    read = "list(signature_modules.read_signatures('a.b:C', allowed_prefixes=None))"
    done = run(tmp_path, f"from workers.handlers import signature_modules; {read}")
    assert "a module of signatures cannot be read: dspy 3.1.0 is installed" in done.stderr.splitlines()[-1]


def test_what_is_installed_here_is_in_range(tmp_path: Path) -> None:
    distribution(tmp_path, "dspex-server", "0.1.0", *declared(ROOT / "pyproject.toml"))
    assert start(tmp_path, "--help").returncode == 0
    assert run(tmp_path, REGISTRY.format("native")).stderr == ""
