"""What a worker that died has left is run again, within its attempts; what lives keeps its lease."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from adapters.port import Outcome
from deploy.processes import wait_until
from dspex import (
    ErrorCode,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionOptions,
    ExecutionStatus,
    uuid7,
)
from store.executions import Request
from tests.unit.system import PATIENCE, System

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request_of(program_id: UUID, **inputs: Any) -> Request:
    return Request(uuid7(), program_id, inputs, ExecutionOptions(), "/tests", TRACE)


class TestRelay:
    def test_an_expired_execution_is_run(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1)
        request = request_of(system.program(), question="why")
        system.lose(request)
        completed = system.event(ExecutionCompleted, request.id)
        assert completed.data.attempt == 2
        assert completed.traceparent == TRACE
        row = system.ended(request.id)
        assert (row.status, row.source, row.inputs) == (ExecutionStatus.COMPLETED, "/tests", {"question": "why"})

    def test_attempts_run_out(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1, max_attempts=1)
        request = request_of(system.program(adapter="scripted"), question="why")
        system.lose(request)
        failed = system.event(ExecutionFailed, request.id)
        assert failed.data.error.code == ErrorCode.ATTEMPTS_EXHAUSTED
        assert "DSPEX_MAX_ATTEMPTS" in failed.data.error.message
        assert failed.data.attempt == 1
        assert system.scripted.runs == []
        row = system.ended(request.id)
        assert [(entry.status, entry.attempt) for entry in row.timeline][-1] == ("failed", 1)
        assert row.attempt == 1  # of 1: the claim that ended it started nothing

    def test_what_is_too_large_for_a_message_is_run_again(self, start: Callable[..., System]) -> None:
        """It is chosen, and not sent: a row may be larger in our JSON than its message was in its sender's."""
        system = start(lease_seconds=1, max_message_bytes=2048)
        program_id = system.program(adapter="scripted")
        large, small = request_of(program_id, question="x" * 2000), request_of(program_id, question="why")
        system.lose(large)
        system.lose(small)
        for request in (small, large):
            assert system.event(ExecutionCompleted, request.id).data.attempt == 2
        assert system.rejected() == []

    def test_a_long_execution_keeps_its_lease(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1)
        let_end = threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            assert let_end.wait(PATIENCE)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        execution_id = system.execute(system.program(adapter="scripted"), question="why")
        leases: set[object] = set()

        def renewed() -> bool:
            with system.app.engine.connect() as connection:
                found = connection.exec_driver_sql("SELECT lease_expires_at FROM executions").scalars()
                leases.update(found)
            return len(leases) > 5  # longer than the lease, without a look at the clock

        assert wait_until(renewed, PATIENCE)
        let_end.set()
        row = system.ended(execution_id)
        assert (row.attempt, row.outputs) == (1, {"answer": "late"})
        assert len(system.scripted.runs) == 1
