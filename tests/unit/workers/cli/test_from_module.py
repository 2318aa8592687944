"""`dspex signature from-module`: a class under a name and a version, again, and after it has changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.click_runner import runner
from workers.cli.main import main

BEGIN = '''
import dspy

class Triage(dspy.Signature):
    """Judge a ticket."""
    ticket: str = dspy.InputField()
    label: str = dspy.OutputField()
'''
MODULE = "from_module_example"
Write = Callable[[str], None]


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes the module, as another process would find it."""

    def written(text: str) -> None:
        (tmp_path / f"{MODULE}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(MODULE, None)

    yield written
    sys.modules.pop(MODULE, None)


def asked(*options: str, code: int = 0) -> Any:
    result = runner().invoke(main, ["signature", "from-module", MODULE, "--json", *options])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if code == 0 else result.stderr


def version_of(*options: str) -> str:
    (found,) = asked(*options)
    version: str = found["signature"]["version"]
    return version


def test_a_name_a_version_and_a_status(write: Write) -> None:
    write(BEGIN)
    (draft,) = asked("--name", "triage", "--version", "2.1.0")
    assert (draft["signature"]["name"], draft["signature"]["version"], draft["status"]) == ("triage", "2.1.0", "draft")
    (again,) = asked("--name", "triage", "--version", "2.1.0", "--activate")
    assert (again["signature_id"], again["status"]) == (draft["signature_id"], "active")
    (plain,) = asked("--activate")
    assert (plain["signature"]["name"], plain["signature"]["version"], plain["status"]) == ("Triage", "1.0.0", "active")


def test_the_next_version_follows_from_what_has_changed(write: Write) -> None:
    write(BEGIN)
    assert version_of("--bump") == "1.0.0"
    assert version_of("--bump") == "1.0.0"
    write(BEGIN.replace("Judge a ticket.", "Judge how urgent a ticket is."))
    assert version_of("--bump") == "1.0.1"
    write(BEGIN + "    reason: str = dspy.OutputField()\n")
    assert version_of("--bump") == "1.1.0"
    write(BEGIN.replace("    label", "    customer: str = dspy.InputField()\n    label"))
    assert version_of("--bump") == "2.0.0"
    write(BEGIN)
    assert version_of("--bump") == "1.0.0"  # as it was before


def test_without_a_bump_a_version_keeps_its_content(write: Write) -> None:
    write(BEGIN)
    first, again = asked(), asked()
    assert first == again
    write(BEGIN.replace("ticket: str", "ticket: int"))
    assert "1.0.0" in asked(code=2)


def test_a_description_is_given_and_changed_without_a_new_version(write: Write) -> None:
    write(BEGIN)
    (first,) = asked("--description", "For the support team.", "--activate")
    assert first["signature"]["description"] == "For the support team."
    (same,) = asked()
    assert same == first
    (changed,) = asked("--description", "For all.", "--bump")
    assert changed["signature"] == first["signature"] | {"description": "For all."}
    assert (changed["signature_id"], changed["digest"]) == (first["signature_id"], first["digest"])


def test_options_that_do_not_fit_are_refused(write: Write) -> None:
    write(BEGIN + BEGIN.replace("Triage", "Other"))
    assert asked("--name", "x", code=2) == (
        f"dspex: name: {MODULE} has 2 signatures: give one of them, as package.module:Class\n"
    )
    assert asked("--version", "2.0.0", "--bump", code=2) == "dspex: --version and --bump: give one of them\n"
    assert "version" in asked("--version", "two", code=2)
