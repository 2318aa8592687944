"""Outputs beside the signature on the whole way: asked for by a program, in its rows, views, events and results."""

from __future__ import annotations

from dspex import Configuration
from dspex.client.interface import Interface
from tests.contract.interface import ready

ASKED = Configuration(module="ChainOfThought", extra_outputs=("reasoning", "trajectory"))
KEPT = {"reasoning": "mock reasoning", "trajectory": "mock trajectory"}


def test_they_are_in_the_view_beside_the_outputs(dspex: Interface) -> None:
    program = ready(dspex, "question -> answer", configuration=ASKED)
    execution = dspex.execute_program(program.program_id, {"question": "why"})
    assert execution.outputs is not None
    assert (list(execution.outputs), execution.extra_outputs) == (["answer"], KEPT)
    listed = dspex.list_executions(program_id=program.program_id).items[0]
    assert (listed.outputs, listed.extra_outputs) == (execution.outputs, KEPT)
    handle = dspex.submit_program(program.program_id, {"question": "who"})
    assert list(handle.result(30)) == ["answer"]
    assert handle.execution(0).extra_outputs == KEPT


def test_a_program_that_asks_for_none_has_none(dspex: Interface) -> None:
    program = ready(dspex, "question -> answer", configuration=ASKED)
    assert dspex.update_program(program.program_id, {"extra_outputs": None}).configuration.extra_outputs == ()
    execution = dspex.execute_program(program.program_id, {"question": "why"})
    assert execution.extra_outputs == {}
    assert "extra_outputs" not in execution.model_dump()
    changed = dspex.update_program(program.program_id, {"extra_outputs": ["reasoning"]})
    assert changed.configuration.extra_outputs == ("reasoning",)
