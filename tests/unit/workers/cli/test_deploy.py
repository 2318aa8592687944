"""`dspex deploy` without a server: what it shows, asks, refuses, and exits with."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from jsonschema import Draft202012Validator

from dspex import schemas
from dspex.client.deployment_file import read_deployment
from tests import pages
from tests.click_runner import runner
from workers.cli.main import main

FILE = """
name = "triage"
signature = "ticket -> urgency: Literal['low', 'high']"
adapter_type = "mock"

[parameters]
outputs = [{ when = {}, then = { urgency = "high" } }]

[check]
ticket = "It is on fire."
"""
CLASS = """
import dspy

class Triage(dspy.Signature):
    \"\"\"Judge it.\"\"\"
    ticket: str = dspy.InputField()
    urgency: str = dspy.OutputField()

class Other(dspy.Signature):
    a: str = dspy.InputField()
    b: str = dspy.OutputField()
"""


class Deploy:
    """The command, with a file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "triage.toml"
        self.file.write_text(FILE, encoding="utf-8")

    def __call__(self, *arguments: object, code: int = 0, answer: str | None = None) -> Result:
        result = runner().invoke(main, ["deploy", *map(str, arguments)], input=answer)
        assert result.exit_code == code, (result.output, result.stderr)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result


@pytest.fixture
def deploy(migrated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deploy:
    database = tmp_path / "dspex.db"
    database.write_bytes(migrated.read_bytes())
    monkeypatch.setenv("DSPEX_DATABASE_URL", f"sqlite:///{database}")
    return Deploy(tmp_path)


def test_a_new_one_then_the_same_then_a_change(deploy: Deploy) -> None:
    first = deploy(deploy.file, "--yes").stdout.splitlines()
    assert first[0].startswith("triage: a new program, ")
    program_id = first[0].rpartition(" ")[2]
    assert first[1:5] == [
        "  + signature: ticket -> urgency",
        '  + name: "triage"',
        '  + adapter_type: "mock"',
        '  + module: "Predict"',
    ]
    assert 'Check: {"urgency":"high"}' in first
    assert f"  dspex program execute {program_id} --input ticket=..." in first
    # What is printed works as it stands.
    line = next(line.strip() for line in first if line.startswith("  dspex program execute"))
    assert runner().invoke(main, line.split()[1:]).exit_code == 0

    again = deploy(deploy.file).stdout  # nobody is asked, as nothing changes
    assert again.splitlines()[0] == f"triage: program {program_id} is as the deployment says."

    changed = deploy(deploy.file, "--module", "ChainOfThought", "--model", "openai/gpt-4o", "--yes").stdout.splitlines()
    assert changed[:3] == [
        f"triage: program {program_id}, which is ready",
        '  ~ module: "Predict" -> "ChainOfThought"',
        '  + lm: {"model":"openai/gpt-4o","parameters":{}}',
    ]


def test_nothing_happens_unless_somebody_agrees(deploy: Deploy) -> None:
    refused = deploy(deploy.file, code=2)
    assert refused.stderr == "dspex: nothing is changed: give --yes to change it without being asked\n"
    shown = deploy(deploy.file, "--dry-run").stdout
    assert "a new program" in shown
    assert json.loads(runner().invoke(main, ["program", "list", "--json"]).stdout)["items"] == []


def test_a_signature_that_breaks_callers(deploy: Deploy) -> None:
    deploy(deploy.file, "--yes")
    inputs = '{"ticket": "a", "tone": "b"}'
    given = (deploy.file, "--signature", "ticket, tone -> urgency: Literal['low', 'high']", "--check", inputs)
    assert deploy(*given, code=2).stderr.startswith("dspex: signature: it breaks callers")  # before anybody is asked
    refused = deploy(*given, "--yes", code=2)
    assert "give allow_breaking" in refused.stderr
    assert "  signature: breaking\n    ! input tone: is new, and must be given\n" in refused.stdout
    assert refused.stderr.startswith("dspex: signature: it breaks callers of program ")
    assert "Check:" in deploy(*given, "--yes", "--allow-breaking").stdout


def test_the_check_fails(deploy: Deploy) -> None:
    deploy.file.write_text(
        FILE.replace("outputs = [", 'fail = { permanent = "always" }\noutputs = ['), encoding="utf-8"
    )
    failed = deploy(deploy.file, "--yes", code=1)
    assert "failed: permanent: " in failed.stderr
    assert "The program stays as it was deployed." in failed.stderr
    as_json = json.loads(deploy(deploy.file, "--yes", "--json", code=1).stdout)
    assert (as_json["program"]["status"], as_json["check"]["status"]) == ("ready", "failed")


def test_inputs_of_the_check_are_looked_at_first(deploy: Deploy) -> None:
    for given, said in {
        "{}": "dspex: check.ticket: is missing\n",
        "[]": "dspex: --check: must be a JSON object of inputs\n",
        "{": "dspex: --check: is not JSON: ",
    }.items():
        assert deploy(deploy.file, "--yes", "--check", given, code=2).stderr.startswith(said)
    assert json.loads(runner().invoke(main, ["program", "list", "--json"]).stdout)["items"] == []


def test_without_a_file(deploy: Deploy) -> None:
    assert "give the file of a deployment, or --name and --signature" in deploy("--name", "x", code=2).stderr
    made = deploy("--name", "x", "--signature", "a -> b", "--adapter", "mock", "--yes").stdout
    assert made.startswith("x: a new program, ")


def test_a_class(deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_triage.py").write_text(CLASS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    shown = deploy(deploy.file, "--signature", "acme_triage:Triage", "--dry-run").stdout
    assert "  + signature: ticket -> urgency\n" in shown
    several = "dspex: signature: is no arrow form ('question -> answer'), no path of a .json file, and no package"
    assert deploy(deploy.file, "--signature", "acme_triage", code=2).stderr.startswith(several)
    assert "acme_triage" in deploy(deploy.file, "--signature", "acme_triage:Nobody", code=2).stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "is not TOML: "),
        (b"name = " + b"{a=" * 2_000 + b"1" + b"}" * 2_000, "is not TOML: its values are too deep"),
        (b"\xff", "is not UTF-8 text"),
        (b'name = "x"', "signature: is missing"),
        (FILE.encode().replace(b"adapter_type", b"adapter"), "adapter: "),
    ],
)
def test_a_file_that_is_wrong(deploy: Deploy, content: bytes, said: str) -> None:
    deploy.file.write_bytes(content)
    refused = deploy(deploy.file, code=2).stderr
    assert refused.startswith("dspex: ")
    assert said in refused
    assert "Traceback" not in refused


def test_no_such_file(deploy: Deploy, tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"
    assert deploy(missing, code=2).stderr == f"dspex: {missing}: cannot be read: No such file or directory\n"


def test_the_file_on_the_page_is_one(tmp_path: Path) -> None:
    text = pages.block("docs/deploy.md", "toml")
    file = tmp_path / "triage.toml"
    file.write_text(text, encoding="utf-8")
    found = read_deployment(file)
    assert (found.name, found.module, found.policy.time_limit) == ("triage", "ChainOfThought", 120.0)
    data: dict[str, Any] = tomllib.loads(text)
    Draft202012Validator(schemas.documents()[schemas.DEPLOYMENT]).validate(data)
    for wrong in ({"nam": 1}, {"name": 1}, {"lm": {"modell": "x"}}, {"state": 1}):
        assert not Draft202012Validator(schemas.documents()[schemas.DEPLOYMENT]).is_valid(data | wrong)
