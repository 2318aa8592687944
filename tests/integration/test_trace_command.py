"""`dspex execution trace` and `dspex program prompt`, on the embedded default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.click_runner import runner
from workers.cli.main import main

NOBODY = {"house": {"model": "openai/gpt-4o-mini", "api_base": "http://127.0.0.1:9/v1", "secret": "HOUSE_API_KEY"}}


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{tmp_path / 'dspex.db'}")
    monkeypatch.setenv("DSPEX_LMS", json.dumps(NOBODY))
    monkeypatch.setenv("HOUSE_API_KEY", "sk-house")


def dspex(*arguments: str) -> Result:
    done = runner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.stderr
    return done


def asked(*arguments: str) -> Any:
    return json.loads(dspex(*arguments, "--json").stdout)


def test_the_steps_of_an_execution() -> None:
    program = asked("program", "create", "p", "question -> answer", "--adapter", "mock")["program_id"]
    dspex("program", "initialize", program)
    line = ("program", "execute", program, "--input", "question=one\n\x1b[31mtwo")
    execution = asked(*line, "--trace")["execution_id"]
    assert asked("execution", "trace", execution)["steps"][0]["kind"] == "predictor"
    shown = dspex("execution", "trace", execution).stdout
    assert shown.startswith(f"execution {execution}, attempt 1: 1 steps\n\n1. predictor mock, ")
    assert '   inputs: {"question": "one' in shown
    assert "\x1b" not in shown
    untraced = asked(*line)["execution_id"]
    refused = runner().invoke(main, ["execution", "trace", untraced])
    assert refused.exit_code == 2
    assert f"execution {untraced} has no trace: ask for one by options.trace" in refused.stderr


def test_the_prompt_of_a_program_that_is_a_draft() -> None:
    """Nobody listens at the address of its LM."""
    made = asked("program", "create", "p", "question -> answer", "--adapter", "native", "--model", "house")
    line = ("program", "prompt", made["program_id"], "--input", "question=Why is\n\x1b[31mthe sky blue?")
    prompt = asked(*line)
    assert (prompt["program_id"], prompt["model"]) == (made["program_id"], "openai/gpt-4o-mini")
    assert [message["role"] for message in prompt["messages"]] == ["system", "user"]
    shown = dspex(*line).stdout
    assert shown.startswith("to openai/gpt-4o-mini, for native-")
    assert "\nsystem:\n  Your input fields are:\n" in shown
    assert "\nuser:\n  [[ ## question ## ]]\n  Why is\n" in shown
    assert "\x1b" not in shown
    refused = runner().invoke(main, ["program", "prompt", made["program_id"], "--input", "other=1"])
    assert refused.exit_code == 2
    assert "question: is missing" in refused.stderr
