"""Which attempts are traced, and what of it is kept with each kind of end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from adapters.port import AdapterError, Outcome, TraceStep
from dspex import ErrorCode, ExecutionOptions, ExecutionStatus
from dspex.contract.retry_policy import ExecutionPolicy
from store.executions import traces
from store.executions.traces import KeptTrace
from tests.unit.system import System

ASKED = ExecutionOptions(trace=True)


def step(text: str) -> TraceStep:
    return TraceStep(kind="lm_call", name="house", details={"answers": [text]})


def kept(system: System, execution_id: UUID) -> KeptTrace | None:
    with system.app.read("default") as connection:
        return traces.get(connection, execution_id)


def test_the_last_of_several_attempts_is_kept(system: System) -> None:
    said = ["one", "two"]

    def run(_: Mapping[str, Any]) -> Outcome:
        if len(said) > 1:
            raise AdapterError(ErrorCode.TRANSIENT, "gone", trace=(step(said.pop(0)),))
        return Outcome({"answer": "a"}, trace=(step(said[0]),))

    system.scripted.run = run
    program_id = system.program(adapter="scripted", policy=ExecutionPolicy(first_delay=0.01))
    ended = system.ended(system.execute(program_id, options=ASKED, question="why"))
    trace = kept(system, ended.id)
    assert trace is not None
    assert (ended.status, trace.attempt) == (ExecutionStatus.COMPLETED, 2)
    assert trace.steps == [{"kind": "lm_call", "name": "house", "details": {"answers": ["two"]}, "duration_ms": None}]


def test_what_a_failed_one_did_is_kept_bounded(system: System) -> None:
    def run(_: Mapping[str, Any]) -> Outcome:
        raise AdapterError(ErrorCode.REFUSED, "no", trace=(step("x\x00\ud800" * 20_000),) * 300)

    system.scripted.run = run
    ended = system.ended(system.execute(system.program(adapter="scripted"), options=ASKED, question="why"))
    trace = kept(system, ended.id)
    assert trace is not None
    assert (ended.status, len(trace.steps), trace.shortened) == (ExecutionStatus.FAILED, 200, True)
    assert trace.steps[0]["details"]["answers"][0].startswith("x?x?")


def test_outputs_that_are_too_large_fail_with_their_trace(system: System) -> None:
    most = system.app.settings.max_message_bytes
    system.scripted.run = lambda _: Outcome({"answer": "x" * most}, trace=(step("long"),))
    policy = ExecutionPolicy(max_attempts=1, repair=False)
    ended = system.ended(
        system.execute(system.program(adapter="scripted", policy=policy), options=ASKED, question="why")
    )
    trace = kept(system, ended.id)
    assert ended.error is not None
    assert trace is not None
    assert (ended.error.code, len(trace.steps)) == ("invalid_output", 1)


def test_nothing_is_kept_that_was_not_asked_for(system: System) -> None:
    system.scripted.run = lambda _: Outcome({"answer": "a"}, trace=(step("nobody asked"),))
    ended = system.ended(system.execute(system.program(adapter="scripted"), question="why"))
    assert kept(system, ended.id) is None
    assert [options.trace for options in system.scripted.options] == [False]


def test_a_rate_draws_each_execution_once(system: System) -> None:
    """By its id: whichever worker has it, and in every attempt."""
    program_id = system.program(adapter="scripted", policy=ExecutionPolicy(trace_rate=0.5))
    drawn, not_drawn = UUID(int=2), UUID(int=1)
    for execution_id in (drawn, not_drawn):
        system.ended(system.execute(program_id, execution_id=execution_id, question="why"))
        assert system.scripted.options[-1].trace is (execution_id == drawn)
