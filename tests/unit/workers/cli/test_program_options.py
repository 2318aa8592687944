"""`--state` and `--extra-output`: a saved state of DSPy, and what is kept beside the outputs of the signature."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.click_runner import runner
from workers.cli.main import main

SAVED: dict[str, Any] = {
    "self": {
        "traces": [],
        "train": [],
        "demos": [{"question": "why", "answer": "because"}],
        "signature": {
            "instructions": "Answer in one word.",
            "fields": [
                {"prefix": "Question:", "description": "${question}"},
                {"prefix": "Answer:", "description": "${answer}"},
            ],
        },
        "lm": None,
    },
    "metadata": {"dependency_versions": {"python": "2.7", "dspy": "1.0.0", "cloudpickle": "3.1"}},
}


@pytest.fixture(autouse=True)
def embedded(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "optimized.json"
    path.write_text(json.dumps(SAVED), encoding="utf-8")
    return path


def asked(*line: object, code: int = 0) -> Any:
    result = runner().invoke(main, [str(part) for part in line])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if code == 0 else result.stderr


def test_a_program_is_created_and_changed_with_a_saved_file(saved: Path) -> None:
    create = ("program", "create", "p", "question -> answer", "--adapter", "mock", "--json")
    created = asked(*create, "--state", saved)
    state = created["configuration"]["state"]
    assert state["predictors"]["self"]["demos"] == SAVED["self"]["demos"]
    assert (state["module"], "metadata" in state) == ("Predict", False)
    update = ("program", "update", created["program_id"], "--json")
    assert asked(*update, "--name", "q")["configuration"] == created["configuration"]
    assert "state" not in asked(*update, "--state", "")["configuration"]
    assert asked(*update, "--state", saved)["configuration"] == created["configuration"]


def test_a_run_takes_a_saved_file_and_says_which_versions_differ(saved: Path) -> None:
    line = ["run", "question -> answer", "--input", "question=why", "--state", str(saved)]
    first = runner().invoke(main, line)
    assert first.exit_code == 0, first.stderr
    told = " ".join(first.stderr.split())
    assert "the state was saved with python 2.7 and not 3." in told
    assert "dspy 1.0.0 and not 3." in told
    programs = asked("program", "list", "--json")["items"]
    assert [program["configuration"]["state"]["module"] for program in programs] == ["Predict"]
    assert runner().invoke(main, line).exit_code == 0
    assert asked("execution", "count", "--json")["completed"] == 1  # the same program, and so the same execution


@pytest.mark.parametrize("command", ["run", "create"])
def test_code_and_what_does_not_fit_are_refused_in_one_line(command: str, tmp_path: Path) -> None:
    line = ["run", "question -> answer", "--input", "question=why"]
    if command == "create":
        line = ["program", "create", "p", "question -> answer"]
    folder = tmp_path / "whole"
    folder.mkdir()
    (tmp_path / "other.json").write_text(json.dumps({"predict": SAVED["self"] | {"lm": {"model": "openai/x"}}}))
    assert asked(*line, "--state", folder, code=2).startswith(
        f"dspex: state: {folder} is a folder, as save_program=True"
    )
    found = asked(*line, "--state", tmp_path / "other.json", code=2)
    assert "state.predictors.predict.lm: the predictor has the LM 'openai/x' of its own" in found
    assert len(found.splitlines()) == 1


def test_what_is_beside_the_signature_is_in_the_results(tmp_path: Path) -> None:
    line = ("run", "question -> answer", "--input", "question=why", "--module", "ChainOfThought")
    one = asked(*line, "--extra-output", "reasoning", "--extra-output", "answer_2")
    assert list(one["outputs"]) == ["answer"]
    assert one["extra_outputs"] == {"reasoning": "mock reasoning", "answer_2": "mock answer_2"}
    assert "extra_outputs" not in asked(*line)
    table = tmp_path / "results.csv"
    (tmp_path / "rows.jsonl").write_text('{"question": "why", "reasoning": "mine"}\n')
    taken = ("run", "question -> answer", "--inputs", "rows.jsonl", "--module", "ChainOfThought")
    result = runner().invoke(main, [*taken, "--extra-output", "reasoning", "--format", "csv", "--output", str(table)])
    assert result.exit_code == 0, result.stderr
    (row,) = csv.DictReader(table.open(encoding="utf-8"))
    assert (row["reasoning"], row["extra.reasoning"]) == ("mine", "mock reasoning")


def test_a_program_is_created_with_extra_outputs_and_changed() -> None:
    create = ("program", "create", "p", "question -> answer", "--adapter", "mock", "--json")
    created = asked(*create, "--extra-output", "reasoning", "--extra-output", "sources")
    assert created["configuration"]["extra_outputs"] == ["reasoning", "sources"]
    update = ("program", "update", created["program_id"], "--json")
    assert asked(*update, "--name", "q")["configuration"] == created["configuration"]
    assert asked(*update, "--extra-output", "sources")["configuration"]["extra_outputs"] == ["sources"]
    assert "extra_outputs" not in asked(*update, "--extra-output", "")["configuration"]
    asked("program", "initialize", created["program_id"], "--json")
