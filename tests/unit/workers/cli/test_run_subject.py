"""`dspex run` on what it may be given beside a signature: a class, a deployment's file, a program that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.port import ProgramSpec
from dspex import Configuration, Signature
from tests.click_runner import runner
from workers.cli.main import main
from workers.cli.run.program import RunProgram
from workers.cli.run.subject import Subject

FILE = """
name = "triage"
signature = "ticket -> urgency: Literal['low', 'high']"
adapter_type = "mock"

[parameters]
outputs = [{ when = {}, then = { urgency = "high" } }]

[policy]
max_attempts = 2
"""
CLASS = '''
import dspy

class Triage(dspy.Signature):
    """Judge it."""
    ticket: str = dspy.InputField()
    urgency: str = dspy.OutputField()
'''
INPUT = ("--input", "ticket=?")


@pytest.fixture(autouse=True)
def folder(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "triage.toml").write_text(FILE, encoding="utf-8")
    (tmp_path / "acme_run.py").write_text(CLASS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Any:
    done = runner().invoke(main, ["run", *arguments])
    assert done.exit_code == code, (done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


def json_of(*arguments: str) -> Any:
    done = runner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_deployments_file() -> None:
    ran = run("triage.toml", *INPUT)
    assert ran["outputs"] == {"urgency": "high"}
    program = json_of("program", "show", ran["program_id"])
    assert (program["name"], program["policy"]) == ("ticket_to_urgency", {"max_attempts": 2} | program["policy"])
    assert program["policy"]["max_attempts"] == 2
    assert run("triage.toml", *INPUT)["execution_id"] == ran["execution_id"]
    other = run("triage.toml", *INPUT, "--module", "ChainOfThought")
    assert other["module"] == "ChainOfThought"
    assert other["program_id"] != ran["program_id"]


def test_a_class() -> None:
    ran = run("acme_run:Triage", *INPUT)
    assert list(ran["outputs"]) == ["urgency"]
    assert json_of("program", "show", ran["program_id"])["name"] == "Triage"


def test_a_program_that_is_there_by_name_and_by_id() -> None:
    deployed = json_of("deploy", "triage.toml", "--yes")["program"]["program_id"]
    by_name = run("triage", *INPUT)
    by_id = run(deployed, *INPUT)
    assert by_name["program_id"] == by_id["program_id"] == deployed
    assert by_name["execution_id"] == by_id["execution_id"]
    # What it was before does not answer for what it is now.
    json_of("program", "update", deployed, "--module", "ChainOfThought")
    after = run("triage", *INPUT)
    assert (after["program_id"], after["module"]) == (deployed, "ChainOfThought")
    assert UUID(after["execution_id"]) != UUID(by_id["execution_id"])


def test_a_program_has_its_own_options() -> None:
    json_of("deploy", "triage.toml", "--yes")
    said = run("triage", *INPUT, "--model", "openai/gpt-4o", "--module", "Predict", code=2)
    assert said.startswith("dspex: --module, --model: program ")
    assert "`dspex program update` changes it" in said


def test_nothing_of_the_name_and_several() -> None:
    said = run("triag", *INPUT, code=2)
    assert said.startswith("dspex: SIGNATURE: 'triag' is no file and no program; write a signature as 'question -> ")
    first = json_of("program", "create", "same", "ticket -> urgency", "--adapter", "mock")["program_id"]
    second = json_of("program", "create", "same", "ticket -> urgency", "--adapter", "mock")["program_id"]
    said = run("same", *INPUT, code=2)
    assert "several programs have the name 'same'" in said
    assert first in said
    assert second in said
    json_of("program", "archive", first)
    assert run("same", *INPUT)["program_id"] == second  # and it is initialized
    json_of("program", "archive", second)
    said = run("same", *INPUT, code=2)
    assert said == f"dspex: SIGNATURE: program {second}, which 'same' names, is archived\n"
    assert f"program {second}, which '{second}' names, is archived" in run(second, *INPUT, code=2)


@pytest.mark.parametrize(
    ("given", "program_id"),
    [
        ("question -> answer", "c9dfb1fa-4bec-52e8-be25-a3a74aaaa54f"),
        ({"arrow": "question -> answer", "name": "QA"}, "d7ddd044-8141-5d06-8ed0-4687d82becb8"),
    ],
)
def test_what_ran_before_names_were_derived_does_not_run_again(given: Any, program_id: str) -> None:
    subject = Subject(ProgramSpec("mock", Signature.parse(given), Configuration()))
    assert str(RunProgram(subject, "default").id) == program_id


def test_a_program_of_a_run_may_be_renamed() -> None:
    first = run("ticket -> urgency", *INPUT)
    json_of("program", "update", first["program_id"], "--name", "mine")
    assert run("ticket -> urgency", *INPUT)["execution_id"] == first["execution_id"]
    assert run("mine", "--input", "ticket=other")["program_id"] == first["program_id"]
