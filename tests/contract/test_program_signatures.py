"""A program gets another signature: what callers notice, what is refused, and that nothing else changes."""

from __future__ import annotations

import uuid

import pytest

from dspex import Configuration, DspexError, Signature, uuid7
from dspex.client import signature_cache
from dspex.client.interface import Interface
from dspex.contract.commands import ModuleVersion
from dspex.contract.results import ProgramView
from tests.contract.interface import ARROW, code_of, ready

WIDER = "question: str, k: int = 3, tone: Optional[str] -> answer: str, score: float, source: str"
BREAKING = "question: str, tone: str -> answer: str"
SAME = ("program_id", "name", "adapter_type", "configuration", "policy", "callback", "status", "inserted_at")


@pytest.fixture
def program(dspex: Interface) -> ProgramView:
    return ready(dspex, configuration=Configuration(parameters={"latency_ms": 0}))


def test_a_compatible_one(dspex: Interface, program: ProgramView) -> None:
    before = dspex.execute_program(program.program_id, {"question": "?"})
    changed = dspex.update_program(program.program_id, signature=WIDER)
    assert [getattr(changed, name) for name in SAME] == [getattr(program, name) for name in SAME]
    assert changed.signature_id != program.signature_id
    assert changed.backend_id != program.backend_id
    assert dspex.get_signature(changed.signature_id).signature == Signature.parse(WIDER)
    after = dspex.execute_program(program.program_id, {"question": "?"})
    assert (set(before.outputs or ()), set(after.outputs or ())) == ({"answer", "score"}, {"answer", "score", "source"})
    assert dspex.get_execution(before.execution_id).outputs == before.outputs


def test_the_client_takes_inputs_of_the_new_one(
    dspex: Interface, program: ProgramView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.client.execution_verbs.RENEW_SECONDS", -1.0)
    assert signature_cache.RENEW_SECONDS == 30.0
    inputs = {"question": "?", "tone": "calm"}
    dspex.execute_program(program.program_id, {"question": "?"})  # its signature is cached from here on
    assert code_of(lambda: dspex.execute_program(program.program_id, inputs)) == "invalid_input"
    dspex.update_program(program.program_id, signature=WIDER)
    assert dspex.execute_program(program.program_id, inputs).status == "completed"
    assert dspex.execute_program(program.program_id, {"question": "?"}).status == "completed"
    assert "source" in dspex.output_model(program.program_id).model_fields


def test_one_that_breaks_callers_is_refused_and_named(dspex: Interface, program: ProgramView) -> None:
    with pytest.raises(DspexError) as refused:
        dspex.update_program(program.program_id, signature=BREAKING, name="another")
    assert refused.value.code == "breaking_change"
    for said in (
        "input tone: is new, and must be given",
        "input k: is gone",
        "output score: is gone",
        "allow_breaking",
    ):
        assert said in refused.value.message
    assert dspex.get_program(program.program_id) == program
    known = {view.digest for view in dspex.list_signatures(limit=1000).items}
    assert Signature.parse(BREAKING).digest not in known
    changed = dspex.update_program(program.program_id, signature=BREAKING, allow_breaking=True)
    assert changed.status == "ready"
    # What was sent by the old one is refused by the worker, as it would be from then on.
    late = dspex.execute_program(program.program_id, {"question": "?"}, validate=False)
    assert (late.status, late.error and late.error.code) == ("failed", "invalid_input")


def test_by_id_by_module_and_the_same_again(dspex: Interface, program: ProgramView) -> None:
    module = f"acme.m{uuid.uuid4().hex}"
    data = Signature.parse(WIDER).model_copy(update={"module": module, "version": "1.0.0"})
    made = dspex.create_signature(data)
    by_id = dspex.update_program(program.program_id, signature=made.signature_id)
    by_module = dspex.update_program(program.program_id, signature=ModuleVersion(module=module))
    again = dspex.update_program(program.program_id, signature=data)
    assert {found.signature_id for found in (by_id, by_module, again)} == {made.signature_id}
    assert {found.backend_id for found in (by_id, by_module, again)} == {by_id.backend_id}
    assert code_of(lambda: dspex.destroy_signature(made.signature_id)) == "illegal_transition"


def test_a_draft_and_none_at_all(dspex: Interface, program: ProgramView) -> None:
    draft = dspex.create_signature(WIDER, activate=False)
    with pytest.raises(DspexError, match="needs a signature that is active"):
        dspex.update_program(program.program_id, signature=draft.signature_id)
    assert code_of(lambda: dspex.update_program(program.program_id, signature=uuid7())) == "not_found"
    assert dspex.get_program(program.program_id) == program
    unready = dspex.create_program("unready", ARROW, adapter_type="mock")
    changed = dspex.update_program(unready.program_id, signature=draft.signature_id)
    assert (changed.status, changed.signature_id) == ("draft", draft.signature_id)
    assert code_of(lambda: dspex.initialize_program(unready.program_id)) == "illegal_transition"
    dspex.activate_signature(draft.signature_id)
    assert dspex.initialize_program(unready.program_id).status == "ready"


def test_what_runs_ends_by_the_old_one(dspex: Interface) -> None:
    program = ready(dspex, configuration=Configuration(parameters={"latency_ms": 400}))
    handle = dspex.submit_program(program.program_id, {"question": "?"})
    while handle.status() != "running":
        pass
    dspex.update_program(program.program_id, signature=WIDER)
    assert set(handle.result(30)) == {"answer", "score"}


def test_another_adapter(dspex: Interface, program: ProgramView) -> None:
    with pytest.raises(DspexError) as refused:
        dspex.update_program(program.program_id, adapter_type="nativ")
    assert "adapter_type: 'nativ' is not one of mock, native, python_port" in refused.value.message
    with pytest.raises(DspexError) as refused:
        dspex.update_program(program.program_id, adapter_type="native")
    assert "lm: the adapter runs an LM" in refused.value.message
    assert dspex.get_program(program.program_id) == program
    unready = dspex.create_program("unready", ARROW, adapter_type="native")
    changed = dspex.update_program(unready.program_id, adapter_type="mock")
    assert (changed.adapter_type, changed.status) == ("mock", "draft")
    assert dspex.initialize_program(unready.program_id).status == "ready"
