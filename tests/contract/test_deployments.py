"""`deploy` makes a program as a deployment says it: the same in process and remote."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dspex import Configuration, DspexError, Signature, uuid7
from dspex.client import program_lookup
from dspex.client.interface import Interface
from dspex.contract.deployment import Deployment
from dspex.contract.results import ProgramView
from dspex.contract.retry_policy import ExecutionPolicy
from tests.contract.interface import code_of

FILE = """
name = "{name}"
signature = "signature.json"
adapter_type = "mock"
module = "ChainOfThought"
parameters = {{ latency_ms = 0 }}

[policy]
max_attempts = 2

[check]
ticket = "It is on fire."
"""
SAVED = {
    "predict": {
        "traces": [],
        "train": [],
        "demos": [{"augmented": True, "ticket": "t0", "reasoning": "r", "label": "low"}],
        "signature": {
            "instructions": "Given the fields `ticket`, produce the fields `label`.",
            "fields": [
                {"prefix": "Ticket:", "description": "${ticket}"},
                {"prefix": "Reasoning:", "description": "${reasoning}"},
                {"prefix": "Label:", "description": "${label}"},
            ],
        },
        "lm": None,
    },
    "metadata": {"dependency_versions": {"python": "3.11", "dspy": "3.4.1", "cloudpickle": "3.1"}},
}
"""What DSPy's `save` wrote."""


def name() -> str:
    return f"deployed {uuid7()}"


def deployment(**changes: Any) -> dict[str, Any]:
    given = {"signature": "ticket -> urgency: Literal['low', 'high']", "adapter_type": "mock"}
    return {"name": name(), **given, **changes}


def members(dspex: Interface, wanted: Any) -> list[tuple[str, Any, Any]]:
    found = dspex.plan_deployment(wanted).differences
    return [(difference.member, difference.before, difference.after) for difference in found]


def test_from_a_file(dspex: Interface, tmp_path: Path) -> None:
    called = name()
    file = tmp_path / "triage.toml"
    file.write_text(FILE.format(name=called), encoding="utf-8")
    signature = Signature.parse("ticket -> urgency: Literal['low', 'high']")
    (tmp_path / "signature.json").write_text(signature.model_dump_json(), encoding="utf-8")

    plan = dspex.plan_deployment(file)
    assert (plan.program, plan.signature, plan.initialize) == (None, None, True)
    assert members(dspex, file) == [
        ("name", None, called),
        ("adapter_type", None, "mock"),
        ("module", None, "ChainOfThought"),
        ("parameters", None, {"latency_ms": 0}),
        ("policy", None, {"max_attempts": 2}),
    ]
    program = dspex.deploy(file)
    assert (program.program_id, program.name, program.status) == (plan.program_id, called, "ready")
    assert program.configuration == Configuration(module="ChainOfThought", parameters={"latency_ms": 0})
    assert program.policy == ExecutionPolicy(max_attempts=2)
    assert dspex.get_signature(program.signature_id).signature == signature
    assert dspex.execute_program(program.program_id, {"ticket": "?"}).status == "completed"

    again = dspex.plan_deployment(str(file))
    assert (again.is_empty, again.program_id) == (True, program.program_id)
    assert dspex.deploy(str(file)).lock_version == program.lock_version


def test_what_differs_changes_and_nothing_else(dspex: Interface) -> None:
    first = deployment(parameters={"latency_ms": 0}, lm={"model": "openai/gpt-4o", "parameters": {"temperature": 0.5}})
    before = dspex.deploy(first)
    lm = {"model": "openai/gpt-4o", "parameters": {"temperature": 0.25}}
    second = first | {"lm": lm, "policy": {"max_attempts": 5}}
    assert members(dspex, second) == [
        ("lm.parameters.temperature", 0.5, 0.25),
        ("policy.max_attempts", None, 5),
    ]
    after = dspex.deploy(second)
    assert (after.program_id, after.status) == (before.program_id, "ready")
    assert after.backend_id != before.backend_id
    assert after.policy.max_attempts == 5
    # The policy is no part of what an adapter builds.
    assert members(dspex, second | {"policy": {}}) == [("policy.max_attempts", 5, None)]
    assert dspex.deploy(second | {"policy": {}}).backend_id == after.backend_id
    # What a file does not name is as by default.
    assert members(dspex, {k: v for k, v in first.items() if k in ("name", "signature", "adapter_type")}) == [
        ("parameters.latency_ms", 0, None),
        ("lm", after.configuration.model_dump(mode="json", exclude_none=True)["lm"], None),
    ]


def test_a_callback_comes_and_goes(dspex: Interface) -> None:
    wanted = deployment(callback={"url": "https://receiver.example/hook", "secret": "A_WEBHOOK_SECRET"})
    with_one = dspex.deploy(wanted)
    assert with_one.callback is not None
    without = {key: value for key, value in wanted.items() if key != "callback"}
    assert [member for member, *_ in members(dspex, without)] == ["callback"]
    assert dspex.deploy(without).callback is None


def test_a_signature(dspex: Interface) -> None:
    wanted = deployment()
    before = dspex.deploy(wanted)
    wider = wanted | {"signature": "ticket, tone: Optional[str] -> urgency: Literal['low', 'high']"}
    plan = dspex.plan_deployment(wider)
    assert [str(change) for change in plan.signature.changes] == ["input tone: is new"] if plan.signature else False
    after = dspex.deploy(wider, plan=plan)
    assert (after.program_id, after.signature_id != before.signature_id) == (before.program_id, True)
    breaking = wanted | {"signature": "ticket, tone -> urgency: Literal['low', 'high']"}
    assert [str(change) for change in dspex.plan_deployment(breaking).breaking]
    assert code_of(lambda: dspex.deploy(breaking)) == "breaking_change"
    assert dspex.get_program(after.program_id) == after
    assert dspex.deploy(breaking, allow_breaking=True).status == "ready"


def test_a_plan_that_is_too_old_does_nothing(dspex: Interface) -> None:
    wanted = deployment()
    program = dspex.deploy(wanted)
    changed = wanted | {"module": "ChainOfThought"}
    plan = dspex.plan_deployment(changed)
    dspex.update_program(program.program_id, {"module": "MultiChainComparison"})
    assert code_of(lambda: dspex.deploy(changed, plan=plan)) == "conflict"
    assert dspex.get_program(program.program_id).configuration.module == "MultiChainComparison"


def test_two_that_deploy_at_once_make_one_program(dspex: Interface) -> None:
    wanted = deployment()
    with ThreadPoolExecutor(2) as threads:
        plans = [dspex.plan_deployment(wanted) for _ in range(2)]
        made = [threads.submit(dspex.deploy, wanted, plan=plan) for plan in plans]
        assert {future.result(60).program_id for future in made} == {plans[0].program_id}
    assert len(dspex.list_programs(name=wanted["name"]).items) == 1


def test_one_that_cannot_be_built_leaves_the_ready_one_as_it_was(dspex: Interface) -> None:
    wanted = deployment()
    program = dspex.deploy(wanted)
    with pytest.raises(DspexError, match="modul"):
        dspex.deploy(wanted | {"parameters": {"modul": 1}})
    assert dspex.get_program(program.program_id) == program
    new = deployment(parameters={"modul": 1})
    with pytest.raises(DspexError, match=r"cannot be built: .*modul"):
        dspex.deploy(new)
    # It is there, with its error, and is mended by the next.
    plan = dspex.plan_deployment(new | {"parameters": {}})
    assert (plan.program and plan.program.status, plan.initialize) == ("error", True)
    assert dspex.deploy(new | {"parameters": {}}).program_id == plan.program_id


def test_several_of_one_name_and_archived_ones(dspex: Interface) -> None:
    wanted = deployment()
    first = dspex.deploy(wanted)
    dspex.archive_program(first.program_id)
    second = dspex.deploy(wanted)
    assert second.program_id != first.program_id
    assert dspex.find_program(wanted["name"]) == dspex.find_program(second.program_id) == second
    assert dspex.find_program(str(second.program_id)) == second
    assert code_of(lambda: dspex.find_program(first.program_id)) == "illegal_transition"
    assert code_of(lambda: dspex.find_program(name())) == "not_found"
    other = dspex.create_program(wanted["name"], "a -> b", adapter_type="mock")
    with pytest.raises(DspexError, match="several programs have the name") as refused:
        dspex.plan_deployment(wanted)
    assert str(other.program_id) in refused.value.message
    assert code_of(lambda: dspex.find_program(wanted["name"])) == "conflict"
    by_id = wanted | {"program_id": second.program_id}
    assert dspex.plan_deployment(by_id).is_empty
    assert code_of(lambda: dspex.deploy(wanted | {"program_id": first.program_id})) == "illegal_transition"
    given = uuid7()
    assert dspex.deploy(deployment(program_id=given)).program_id == given


def test_a_program_is_found_behind_any_number_of_archived_ones(dspex: Interface) -> None:
    called = name()
    found = dspex.create_program(called, "a -> b", adapter_type="mock")
    for _ in range(program_lookup.MAX_NAMED + 1):
        newer = dspex.create_program(called, found.signature_id, adapter_type="mock")
        dspex.archive_program(newer.program_id)
    assert dspex.find_program(called) == found
    listed = dspex.list_programs(name=called, archived=False).items
    assert [program.program_id for program in listed] == [found.program_id]
    assert len(dspex.list_programs(name=called, archived=True).items) == program_lookup.MAX_NAMED + 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nam": "x"}, "nam"),
        ({"name": ""}, "name"),
        ({"signature": "x"}, "signature: is no arrow form"),
        ({"signature": "acme.m:C"}, "signature: 'acme.m:C' cannot be imported here: ModuleNotFoundError"),
        ({"signature": "no.json"}, "signature: no.json cannot be read: No such file or directory"),
        ({"state": "no.json"}, "state: no.json cannot be read: No such file or directory"),
        ({"lm": {"modell": "x"}}, "lm.modell"),
    ],
)
def test_what_cannot_be_is_named(dspex: Interface, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DspexError) as refused:
        dspex.deploy(deployment(**wrong))
    assert said in str(refused.value)


def test_as_a_model_and_as_json(dspex: Interface, tmp_path: Path) -> None:
    wanted = deployment()
    file = tmp_path / "it.json"
    file.write_text(json.dumps(wanted), encoding="utf-8")
    program: ProgramView = dspex.deploy(Deployment.model_validate(wanted))
    assert dspex.plan_deployment(file).program == program


def test_the_state_that_dspy_saved(dspex: Interface, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps(SAVED), encoding="utf-8")
    wanted = deployment(signature="ticket -> label", module="ChainOfThought", state=str(tmp_path / "state.json"))
    program = dspex.deploy(wanted)
    assert program.configuration.state is not None
    assert program.configuration.state.predictors["predict"].demos[0]["ticket"] == "t0"
    assert dspex.plan_deployment(wanted).is_empty
    (tmp_path / "folder").mkdir()
    with pytest.raises(DspexError, match="as save_program=True writes it"):
        dspex.deploy(wanted | {"state": str(tmp_path / "folder")})
