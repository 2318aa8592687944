"""Traces, asked for by an execution or by its program's policy, in process and over the broker."""

from __future__ import annotations

import pytest

from dspex import DspexError, ExecutionOptions, uuid7
from dspex.client.interface import Interface
from dspex.contract.retry_policy import ExecutionPolicy
from tests.contract.interface import code_of, ready

ROW = {"question": "why?"}


def test_an_execution_asks_for_its_trace(dspex: Interface) -> None:
    program_id = ready(dspex).program_id
    execution = dspex.execute_program(program_id, ROW, options=ExecutionOptions(trace=True), metadata={"a": "b"})
    trace = dspex.get_execution_trace(execution.execution_id)
    assert (trace.execution_id, trace.attempt, trace.shortened) == (execution.execution_id, 1, False)
    [step] = trace.steps
    assert (step.kind, step.name) == ("predictor", "mock")
    assert step.details["inputs"] == {"question": "why?", "k": 3}
    assert step.details["outputs"] == execution.outputs
    assert execution.options.trace is True
    assert "steps" not in execution.model_dump_json()


def test_where_there_is_none(dspex: Interface) -> None:
    execution = dspex.execute_program(ready(dspex).program_id, ROW)
    with pytest.raises(DspexError, match=r"has no trace: ask for one by options\.trace") as refused:
        dspex.get_execution_trace(execution.execution_id)
    assert refused.value.code == "not_found"
    assert code_of(lambda: dspex.get_execution_trace(uuid7())) == "not_found"


def test_the_prompt_of_a_program(dspex: Interface) -> None:
    """On an LM: `tests/contract/test_first_prompt.py`."""
    program_id = ready(dspex).program_id
    with pytest.raises(DspexError, match="'mock' has no prompts to show") as refused:
        dspex.get_program_prompt(program_id, ROW)
    assert refused.value.code == "permanent"
    assert code_of(lambda: dspex.get_program_prompt(program_id, {"question": 7})) == "invalid_input"
    assert code_of(lambda: dspex.get_program_prompt(uuid7(), ROW)) == "not_found"


def test_a_policy_asks_for_all_but_those_that_say_no(dspex: Interface) -> None:
    program_id = ready(dspex, policy=ExecutionPolicy(trace_rate=1)).program_id
    traced, untraced = (
        dspex.execute_program(program_id, ROW, options=ExecutionOptions(trace=asked)) for asked in (None, False)
    )
    assert len(dspex.get_execution_trace(traced.execution_id).steps) == 1
    assert code_of(lambda: dspex.get_execution_trace(untraced.execution_id)) == "not_found"
