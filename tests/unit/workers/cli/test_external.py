"""`dspex execution create` and `mark-…`: each line in a process of its own, on the embedded default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.click_runner import runner
from workers.cli.main import main


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")


def asked(*line: object, code: int = 0) -> Any:
    result = runner().invoke(main, [str(part) for part in (*line, "--json")])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if code == 0 else result.stderr


def created() -> str:
    program = asked("program", "create", "p", "question -> answer", "--adapter", "mock")["program_id"]
    line = ("execution", "create", program, "--input", "question=why", "--metadata", "batch=7")
    made = asked(*line)
    assert (made["status"], made["external"], made["metadata"]) == ("pending", True, {"batch": "7"})
    return str(made["execution_id"])


def test_one_is_created_and_marked_to_its_end() -> None:
    id_ = created()
    assert asked("execution", "mark-running", id_, "--lock-version", 1, "--expires-in", 60)["lock_version"] == 2
    line = ("execution", "mark-completed", id_, "--lock-version", 2)
    for option, text, told in (
        ("--outputs", "{", "--outputs: is not JSON"),
        ("--outputs", "[]", "--outputs: must be a JSON object"),
        ("--outputs", '{"score": 1}', "answer: is missing"),
    ):
        assert told in asked(*line, option, text, code=2)
    outputs = ("--outputs", '{"answer": "because"}')
    assert "--usage: must be a JSON object" in asked(*line, *outputs, "--usage", "1", code=2)
    done = asked(*line, *outputs, "--usage", '{"calls": 1, "input_tokens": 9}', "--duration-ms", 2.5)
    assert (done["status"], done["outputs"], done["duration_ms"]) == ("completed", {"answer": "because"}, 2.5)
    assert "is completed (lock_version 3)" in asked(*line, *outputs, code=2)


def test_one_fails_once_however_often_the_mark_is_repeated() -> None:
    id_ = created()
    asked("execution", "mark-running", id_, "--lock-version", 1)
    line = ("execution", "mark-failed", id_, "--lock-version", 2, "--message", "no luck")
    again = ("--mark", "0190f6a0-0000-7000-8000-000000000000")
    failed = asked(*line, *again)
    assert failed["error"]["code"] == "permanent"
    assert asked(*line, *again) == failed
    assert "is failed (lock_version 3)" in asked(*line, code=2)
