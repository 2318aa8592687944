"""`dspex execution count` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.click_runner import runner
from workers.cli.main import main

ID = "01a211e6-a8b7-7693-bc29-cfc34868663e"


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")


def test_it_says_how_many_there_are_of_each_status() -> None:
    counted = runner().invoke(main, ["execution", "count", "--since", "2026-01-01", "--error-code", "auth", "--json"])
    assert counted.exit_code == 0, counted.stderr
    assert json.loads(counted.stdout) == {
        **dict.fromkeys(("pending", "running", "completed", "failed", "cancelled"), 0),
        "complete": True,
        "oldest": None,
    }


@pytest.mark.parametrize("verb", ["list", "count"])
def test_a_label_is_a_name_and_a_value(verb: str) -> None:
    asked = runner().invoke(main, ["execution", verb, "--label", "batch=7", "--label", "empty=", "--json"])
    assert asked.exit_code == 0, asked.stderr
    refused = runner().invoke(main, ["execution", verb, "--label", "batch"])
    assert (refused.exit_code, refused.stderr) == (2, "dspex: --label: must be NAME=VALUE, each name once\n")


def test_there_is_no_such_program() -> None:
    refused = runner().invoke(main, ["execution", "count", "--program", ID])
    assert (refused.exit_code, refused.stderr) == (2, f"dspex: program_id: there is no program {ID}\n")
