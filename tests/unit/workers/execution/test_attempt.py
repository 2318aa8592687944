"""Attempts: retried by what a failure means, scheduled, expired, stopped, and told of once; keys and policies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from adapters.port import AdapterError, Outcome
from dspex import (
    LM,
    ErrorCode,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionOptions,
    ExecutionStatus,
    LMParameters,
    MessageRejected,
    Usage,
    uuid7,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.contract.retry_policy import ExecutionPolicy
from store import executions
from store.executions import Claimed, Lease
from store.programs import Program
from store.tables import programs
from tests.unit.system import System
from tests.waiting import wait_until
from workers.execution import attempt as attempts

QUICK = ExecutionPolicy(first_delay=0.01)
USED = Usage(calls=1, input_tokens=3, cost=0.5)


def failing(*errors: AdapterError) -> Callable[[Mapping[str, Any]], Outcome]:
    """A run that fails with each of these, then gives outputs."""
    left = list(errors)

    def run(_inputs: Mapping[str, Any]) -> Outcome:
        if left:
            raise left.pop(0)
        return Outcome({"answer": "at last"}, USED)

    return run


def told(system: System, execution_id: Any) -> list[tuple[str, int]]:
    return [(entry.status, entry.attempt) for entry in system.ended(execution_id).timeline]


class TestRetries:
    def test_a_passing_error_is_tried_again_and_all_usage_counts(self, system: System) -> None:
        system.scripted.run = failing(
            AdapterError(ErrorCode.TRANSIENT, "gone", usage=USED), AdapterError(ErrorCode.TIMEOUT, "slow", usage=USED)
        )
        program_id = system.program(adapter="scripted", policy=QUICK)
        row = system.ended(system.execute(program_id, question="why"))
        assert (row.status, row.attempt, row.error) == (ExecutionStatus.COMPLETED, 3, None)
        assert row.usage == USED + USED + USED
        assert told(system, row.id) == [
            *(("running", 1), ("pending", 1)),
            *(("running", 2), ("pending", 2)),
            *(("running", 3), ("completed", 3)),
        ]
        assert system.event(ExecutionCompleted, row.id).data.usage == row.usage
        program = system.find_program(program_id)
        assert program is not None
        assert program.execution_count == 1

    def test_attempts_are_a_bound(self, system: System) -> None:
        system.scripted.run = failing(*(AdapterError(ErrorCode.TRANSIENT, f"gone {n}") for n in range(9)))
        policy = QUICK.model_copy(update={"max_attempts": 2})
        row = system.ended(system.execute(system.program(adapter="scripted", policy=policy), question="why"))
        assert row.error is not None
        assert (row.status, row.attempt, row.error.message) == (ExecutionStatus.FAILED, 2, "gone 1")
        assert system.event(ExecutionFailed, row.id).data.attempt == 2
        assert len(system.scripted.runs) == 2

    def test_a_program_that_was_changed_after_the_claim_spends_no_attempt(self, system: System) -> None:
        policy = QUICK.model_copy(update={"max_attempts": 1})
        program_id = system.program(adapter="scripted", policy=policy)
        programs, changed = system.app.programs, list[str]()
        find = programs._find

        def find_changed(program_id: UUID, tenant: str) -> Program:
            """As it is when it was changed at this moment; the next claim has what it is by then."""
            program = find(program_id, tenant)
            if changed:
                return program
            changed.append("once")
            configuration = program.configuration.model_copy(update={"parameters": {"seed": 2}})
            return replace(program, configuration=configuration, backend_id="another")

        programs._loaded.clear()
        programs._find = find_changed
        row = system.ended(system.execute(program_id, question="why"))
        assert (row.status, row.attempt, changed) == (ExecutionStatus.COMPLETED, 1, ["once"])
        assert told(system, row.id) == [("running", 1), ("pending", 0), ("running", 1), ("completed", 1)]

    def test_a_program_of_a_later_version_is_left_to_its_workers(self, system: System) -> None:
        program_id = system.program(adapter="scripted", policy=QUICK.model_copy(update={"max_attempts": 1}))
        written = {"module": "Predict", "parameters": {}, "lm": None, "of_later": {"a": 1}}
        with system.app.engine.begin() as connection:
            connection.execute(programs.update().values(configuration=written))
        system.app.programs._loaded.clear()
        execution_id = system.execute(program_id, question="why")
        wait_until(lambda: getattr(system.row(execution_id), "error", None) is not None, "it was given back")
        row = system.row(execution_id)
        assert row is not None
        assert row.error is not None
        assert (row.status, row.attempt) == (ExecutionStatus.PENDING, 0)
        assert "a later version of DSPex wrote it (of_later): replace this worker" in row.error.message
        assert system.scripted.runs == []

    def test_a_rate_limit_spends_no_attempt(self, system: System) -> None:
        limited = [AdapterError(ErrorCode.RATE_LIMITED, "slow down", retry_after=0.01) for _ in range(3)]
        system.scripted.run = failing(*limited)
        policy = QUICK.model_copy(update={"max_attempts": 1, "max_delay": 0.02})
        row = system.ended(system.execute(system.program(adapter="scripted", policy=policy), question="why"))
        assert (row.status, row.attempt) == (ExecutionStatus.COMPLETED, 1)
        assert len(system.scripted.runs) == 4

    def test_a_bad_hour_is_one_line(self, system: System, caplog: pytest.LogCaptureFixture) -> None:
        """Of an LM that refuses everybody: the first execution by name, the others as a count, later."""
        caplog.set_level(logging.INFO)
        system.scripted.run = failing(*(AdapterError(ErrorCode.RATE_LIMITED, "slow down", retry_after=0.01),) * 40)
        program_id = system.program(adapter="scripted", policy=QUICK.model_copy(update={"max_delay": 0.02}))
        ids = [system.execute(program_id, question="why") for _ in range(20)]
        rows = [system.ended(execution_id) for execution_id in ids]
        assert {row.status for row in rows} == {ExecutionStatus.COMPLETED}
        about = [message for message in caplog.messages if any(str(id_) in message for id_ in ids)]
        (line,) = [message for message in about if "rate_limited" in message]
        assert f"Attempts of program {program_id} fail for now (rate_limited): execution " in line
        assert len(about) <= 3

    def test_a_policy_without_pauses_does_not_wait_for_ever(self, system: System) -> None:
        """Each of its waits has taken what the clock says, not the nothing that was asked for."""
        system.scripted.run = failing(*(AdapterError(ErrorCode.RATE_LIMITED, "slow down", usage=USED),) * 99)
        policy = ExecutionPolicy(first_delay=0, max_delay=0, max_wait=2.5)
        row = system.ended(system.execute(system.program(adapter="scripted", policy=policy), question="why"))
        assert row.error is not None
        assert (row.status, row.attempt, row.error.code) == (ExecutionStatus.FAILED, 1, ErrorCode.RATE_LIMITED)
        assert row.finished_at is not None
        assert 2 <= len(system.scripted.runs) <= 6
        assert (row.finished_at - row.inserted_at).total_seconds() >= 0.5 * (len(system.scripted.runs) - 1)

    def test_between_attempts_the_row_says_why_and_until_when(self, system: System) -> None:
        system.scripted.run = failing(AdapterError(ErrorCode.TRANSIENT, "gone", usage=USED))
        policy = ExecutionPolicy(first_delay=3000, max_delay=3000)
        execution_id = system.execute(system.program(adapter="scripted", policy=policy), question="why")
        system.wait(lambda: (row := system.row(execution_id)) and row.status == ExecutionStatus.PENDING)
        row = system.row(execution_id)
        assert row is not None
        assert row.error is not None
        assert row.not_before is not None
        assert (row.error.code, row.usage) == (ErrorCode.TRANSIENT, USED)
        assert timedelta(minutes=20) < row.not_before - row.updated_at < timedelta(minutes=51)

        # Its message again, as from a broker that lost an ack: it is not due.
        system.execute(row.program_id, execution_id, question="why")
        system.ended(system.execute(row.program_id, question="another"))
        assert len(system.scripted.runs) == 2

        # Whoever cancels it ends it at once; what was used is counted.
        cancelled = system.app.write(lambda connection: executions.cancel(connection, execution_id, by="ann"))
        assert cancelled.status == ExecutionStatus.CANCELLED
        assert cancelled.usage == USED

    def test_a_result_of_a_claim_that_another_took_is_discarded(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=60)
        entered, let_end = threading.Event(), threading.Event()

        def run(_inputs: Mapping[str, Any]) -> Outcome:
            entered.set()
            assert let_end.wait(30)
            return Outcome({"answer": "stale"})

        system.scripted.run = run
        execution_id = system.execute(system.program(adapter="scripted"), question="why")
        assert entered.wait(30)
        row = system.row(execution_id)
        assert row is not None
        with system.app.engine.begin() as connection:
            assert executions.release(connection, Lease(str(row.worker), 60)) == 1
        system.scripted.run = lambda _inputs: Outcome({"answer": "fresh"})
        assert system.ended(execution_id).outputs == {"answer": "fresh"}
        let_end.set()
        system.stop()
        after = system.row(execution_id)
        assert after is not None
        assert after.outputs == {"answer": "fresh"}
        assert len(system.events_of(ExecutionCompleted, execution_id)) == 1


class TestTime:
    def test_what_is_scheduled_waits_in_the_database(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        execution_id = system.execute(program_id, options=ExecutionOptions(not_before=at), question="why")
        system.wait(lambda: system.row(execution_id))
        row = system.row(execution_id)
        assert row is not None
        assert (row.status, row.attempt, row.started_at) == (ExecutionStatus.PENDING, 0, None)
        assert not system.broker.queues[EXECUTIONS_QUEUE]._bodies
        row = system.ended(execution_id)
        assert (row.status, row.attempt) == (ExecutionStatus.COMPLETED, 1)
        assert row.started_at is not None
        assert row.started_at >= at
        assert told(system, execution_id) == [("pending", 0), ("running", 1), ("completed", 1)]

    def test_what_is_past_its_deadline_is_not_run(self, system: System) -> None:
        options = ExecutionOptions(deadline=datetime.now(UTC) - timedelta(seconds=1))
        row = system.ended(system.execute(system.program(adapter="scripted"), options=options, question="why"))
        assert row.error is not None
        assert (row.status, row.error.code) == (ExecutionStatus.FAILED, ErrorCode.EXPIRED)
        assert system.scripted.runs == []

    def test_a_pause_that_outlasts_the_deadline_is_not_waited_for(self, system: System) -> None:
        system.scripted.run = failing(AdapterError(ErrorCode.RATE_LIMITED, "slow down", retry_after=3000))
        options = ExecutionOptions(deadline=datetime.now(UTC) + timedelta(minutes=10))
        row = system.ended(system.execute(system.program(adapter="scripted"), options=options, question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.RATE_LIMITED

    @pytest.mark.parametrize(
        ("limit", "deadline", "least", "most"),
        [
            pytest.param(3600.0, None, 3600.0, 3600.0, id="the limit alone"),
            pytest.param(3600.0, 120.0, 30.0, 120.0, id="the deadline comes first"),
            pytest.param(60.0, 3600.0, 60.0, 60.0, id="the limit comes first"),
        ],
    )
    def test_a_run_has_until_its_limit_or_its_deadline(
        self, system: System, limit: float, deadline: float | None, least: float, most: float
    ) -> None:
        program_id = system.program(adapter="scripted", policy=ExecutionPolicy(time_limit=limit))
        until = None if deadline is None else datetime.now(UTC) + timedelta(seconds=deadline)
        row = system.ended(system.execute(program_id, options=ExecutionOptions(deadline=until), question="why"))
        (options,) = system.scripted.options
        assert options.run_id == f"default/{row.id}"
        assert options.timeout is not None
        assert least <= options.timeout <= most

    @pytest.mark.parametrize(
        ("deadline", "code", "runs"),
        [(0.4, ErrorCode.EXPIRED, 1), (None, ErrorCode.TIMEOUT, 2), (600.0, ErrorCode.TIMEOUT, 2)],
    )
    def test_a_timeout_is_of_the_deadline_once_that_has_passed(
        self, system: System, deadline: float | None, code: ErrorCode, runs: int
    ) -> None:
        """And then it is not tried again."""

        def run(_inputs: Mapping[str, Any]) -> Outcome:
            time.sleep(0.5)
            raise AdapterError(ErrorCode.TIMEOUT, "the run took too long", usage=USED)

        system.scripted.run = run
        program_id = system.program(adapter="scripted", policy=QUICK.model_copy(update={"max_attempts": 2}))
        until = None if deadline is None else datetime.now(UTC) + timedelta(seconds=deadline)
        row = system.ended(system.execute(program_id, options=ExecutionOptions(deadline=until), question="why"))
        assert row.error is not None
        assert (row.error.code, len(system.scripted.runs), row.usage.calls) == (code, runs, runs)

    @pytest.mark.parametrize(("size", "code"), [(2048, None), (2049, ErrorCode.INVALID_OUTPUT)])
    def test_outputs_have_a_size_at_most(self, start: Callable[..., System], size: int, code: ErrorCode | None) -> None:
        system = start(max_message_bytes=2048)
        answer = "x" * (size - len('{"answer":""}'))
        system.scripted.run = lambda _inputs: Outcome({"answer": answer}, USED)
        program_id = system.program(adapter="scripted", policy=ExecutionPolicy(repair=False))
        row = system.ended(system.execute(program_id, question="why"))
        assert (row.error and row.error.code, row.usage) == (code, USED)
        assert row.outputs == ({"answer": answer} if code is None else None)
        assert row.error is None or row.error.message.startswith("the outputs have 2049 bytes; ")

    def test_a_deadline_before_the_start_is_refused(self) -> None:
        now = datetime.now(UTC)
        with pytest.raises(ValueError, match="later than not_before"):
            ExecutionOptions(not_before=now, deadline=now)

    def test_the_time_limit_ends_what_its_adapter_cannot_stop(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.0)
        system = start(lease_seconds=1)
        let_end = threading.Event()

        def run(_inputs: Mapping[str, Any]) -> Outcome:
            assert let_end.wait(30)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        policy = ExecutionPolicy(time_limit=0.2, max_attempts=1)
        row = system.ended(system.execute(system.program(adapter="scripted", policy=policy), question="why"))
        let_end.set()
        assert row.error is not None
        assert (row.error.code, row.outputs) == (ErrorCode.TIMEOUT, None)
        assert "time_limit" in row.error.message
        system.stop()
        after = system.row(row.id)
        assert after == row

    def test_the_deadline_ends_what_its_adapter_cannot_stop(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempts, "GRACE_SECONDS", 0.0)
        system = start(lease_seconds=1)
        begun, let_end = threading.Event(), threading.Event()

        def run(_inputs: Mapping[str, Any]) -> Outcome:
            begun.set()
            assert let_end.wait(30)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        program_id = system.program(adapter="scripted", policy=ExecutionPolicy(time_limit=3600))
        options = ExecutionOptions(deadline=datetime.now(UTC) + timedelta(seconds=2))
        row = system.ended(system.execute(program_id, options=options, question="why"))
        let_end.set()
        assert begun.is_set()
        assert row.error is not None
        assert (row.status, row.error.code, row.outputs) == (ExecutionStatus.FAILED, ErrorCode.EXPIRED, None)
        system.stop()
        assert system.row(row.id) == row


class TestKeys:
    def test_the_first_execution_stands_for_all(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        first = system.execute(program_id, idempotency_key="order 7", question="why")
        system.event(ExecutionCompleted, first)
        others = [system.execute(program_id, idempotency_key="order 7", question="why") for _ in range(20)]
        last = system.execute(program_id, question="the last")
        system.event(ExecutionCompleted, last)
        assert [system.row(other) for other in others] == [None] * 20
        assert len(system.scripted.runs) == 2

    def test_another_body_is_a_conflict_and_runs_nothing(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        system.ended(system.execute(program_id, idempotency_key="order 7", question="why"))
        system.execute(program_id, idempotency_key="order 7", question="how")
        rejected = system.event(MessageRejected)
        assert rejected.data.error.code == "conflict"
        assert "idempotency_key: 'order 7'" in rejected.data.error.message
        assert len(system.scripted.runs) == 1

    def test_a_key_that_came_to_nothing_is_free(self, system: System) -> None:
        system.execute(uuid7(), idempotency_key="order 7", question="why")
        assert system.event(MessageRejected).data.error.code == "not_found"
        program_id = system.program(adapter="scripted")
        system.ended(system.execute(program_id, idempotency_key="order 7", question="why"))


class TestParameters:
    """`options.lm`."""

    LM = LM(model="openai/gpt-4o-mini", overridable=("temperature", "seed"))
    WARM = ExecutionOptions(lm=LMParameters(temperature=0.5))

    def test_what_the_program_lets_be_set_reaches_the_adapter(self, system: System) -> None:
        program_id = system.program(adapter="scripted", lm=self.LM)
        row = system.ended(system.execute(program_id, options=self.WARM, question="why"))
        assert row.status == ExecutionStatus.COMPLETED
        system.ended(system.execute(program_id, question="why"))
        assert [options.lm for options in system.scripted.options] == [self.WARM.lm, None]

    def test_anything_else_is_invalid_input_and_runs_nothing(self, system: System) -> None:
        asked = LMParameters(temperature=0.5, top_p=0.5, provider={"logit_bias": {}})
        for lm, names in ((self.LM, "seed, temperature"), (None, "none")):
            program_id = system.program(adapter="scripted", lm=lm)
            row = system.ended(system.execute(program_id, options=ExecutionOptions(lm=asked), question="why"))
            assert row.error is not None
            assert (row.error.code, row.attempt) == (ErrorCode.INVALID_INPUT, 1)
            fields = [problem.field for problem in row.error.problems]
            assert fields[-2:] == ["options.lm.top_p", "options.lm.logit_bias"]
            assert row.error.problems[-1].message.endswith(f"has {names}")
        assert system.scripted.runs == []

    def test_they_are_a_part_of_the_request(self, system: System) -> None:
        program_id = system.program(adapter="scripted", lm=self.LM)
        system.ended(system.execute(program_id, idempotency_key="order 7", options=self.WARM, question="why"))
        system.execute(program_id, idempotency_key="order 7", question="why")
        assert system.event(MessageRejected).data.error.code == "conflict"
        assert len(system.scripted.runs) == 1


class TestIsolation:
    def test_the_last_attempt_after_lost_ones_runs_alone(self, start: Callable[..., System]) -> None:
        """Whatever ended its worker twice before may do it a third time: nothing else runs beside it."""
        system = start(lease_seconds=60, max_attempts=2, running=False)
        beside, most, lock = [0], [0], threading.Lock()
        suspects: list[int] = []

        def run(inputs: Mapping[str, Any]) -> Outcome:
            with lock:
                beside[0] += 1
                most[0] = max(most[0], beside[0])
                if inputs["question"] == "suspect":
                    suspects.append(beside[0])
            threading.Event().wait(0.01)
            with lock:
                suspects.extend([beside[0]] if inputs["question"] == "suspect" else [])
                beside[0] -= 1
            return Outcome({"answer": ""})

        system.scripted.run = run
        system.start()
        program_id = system.program(adapter="scripted")
        for number in range(60):
            execution_id = uuid7()
            if number % 6 == 0:
                with system.app.engine.begin() as connection:
                    request = system.request(program_id, execution_id, question="suspect")
                    [claimed] = executions.claim(connection, Lease("lost", 0.0), [request], now=[True])
                    assert isinstance(claimed, Claimed)
            system.execute(program_id, execution_id, question="suspect" if number % 6 == 0 else "why")
        system.wait(lambda: len({event.subject for event in system.events_of(ExecutionCompleted)}) == 60)
        assert set(suspects) == {1}
        assert len(suspects) == 20
        assert most[0] > 1
