"""What is lost of a signature, as the commands tell it; with `--strict`, they refuse it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.click_runner import runner
from workers.cli.main import main

SCHEMA = {"type": "object", "properties": {"zip": {"type": "string", "format": "zip"}}, "additionalProperties": True}
SIGNATURE = {"name": "place", "inputs": [{"name": "text", "type": "str"}], "outputs": [{"name": "at", "type": SCHEMA}]}
LOST = [
    "at.zip: format 'zip' is not checked",
    "at: additionalProperties is not kept: keys that are no properties are refused",
]
CLASS = """
import dspy
from pydantic import BaseModel, field_validator

class Place(BaseModel):
    zip: str

    @field_validator("zip")
    @classmethod
    def check(cls, zip):
        return zip

class Find(dspy.Signature):
    text: str = dspy.InputField()
    at: Place = dspy.OutputField()
"""
OF_THE_CLASS = ["at: losses_example.Place checks zip by its validator check, which is not run"]


@pytest.fixture(autouse=True)
def folder(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "losses_example", raising=False)
    (tmp_path / "losses_example.py").write_text(CLASS)
    (tmp_path / "place.json").write_text(json.dumps(SIGNATURE))
    (tmp_path / "place.toml").write_text('name = "by file"\nsignature = "place.json"\nadapter_type = "mock"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*words: str) -> Result:
    return runner().invoke(main, words)


def warnings_in(result: Result) -> list[str]:
    marked = [line for line in result.stderr.splitlines() if "warning: " in line]
    return [line.partition("warning: ")[2] for line in marked]


COMMANDS = {
    "signature create": (("signature", "create", "place.json", "--json"), LOST),
    "signature from-module": (("signature", "from-module", "losses_example:Find", "--json"), OF_THE_CLASS),
    "program create": (("program", "create", "p", "place.json", "--adapter", "mock", "--json"), LOST),
    "program create, class": (("program", "create", "p", "losses_example:Find", "--json"), OF_THE_CLASS),
    "run": (("run", "place.json", "--input", "text=a"), LOST),
    "run, class": (("run", "losses_example:Find", "--input", "text=a"), OF_THE_CLASS),
    "deploy": (("deploy", "place.toml", "--yes", "--json"), LOST),
    "deploy --dry-run": (("deploy", "place.toml", "--dry-run", "--json"), LOST),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_told_and_refused_if_one_asks(name: str) -> None:
    words, lost = COMMANDS[name]
    refused = asked(*words, "--strict")
    assert refused.exit_code == 2, refused.stdout
    assert all(line.partition(": ")[2] in refused.stderr for line in lost)
    result = asked(*words)
    assert result.exit_code == 0, result.stderr
    assert warnings_in(result) == lost
    assert "SignatureWarning" not in result.stderr
    if "--json" in words:
        told: Any = json.loads(result.stdout)
        told = told[0] if isinstance(told, list) else told
        assert told["warnings"] == lost


def test_a_change_of_a_draft_and_of_a_program() -> None:
    draft = json.loads(asked("signature", "create", "text -> at", "--draft", "--json").stdout)["signature_id"]
    program = json.loads(asked("program", "create", "p", "text -> at", "--adapter", "mock", "--json").stdout)
    for words in (
        ("signature", "update", draft, "place.json", "--json"),
        ("program", "update", program["program_id"], "--signature", "place.json", "--allow-breaking", "--json"),
    ):
        assert asked(*words, "--strict").exit_code == 2
        changed = asked(*words)
        assert changed.exit_code == 0, changed.stderr
        assert json.loads(changed.stdout)["warnings"] == LOST


def test_nothing_is_told_where_nothing_is_lost() -> None:
    result = asked("signature", "create", "text -> answer", "--strict", "--json")
    assert result.exit_code == 0
    assert "warnings" not in json.loads(result.stdout)
    assert result.stderr == ""
