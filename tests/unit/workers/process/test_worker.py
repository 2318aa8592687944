"""A worker process that stops: what runs ends or is given back, what waits goes back to its queue."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from adapters.port import Outcome
from deploy.processes import wait_until
from dspex import (
    ExecutionStatus,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE
from tests.unit.system import PATIENCE, System


class TestStop:
    def test_what_runs_ends_and_what_waits_goes_back(self, start: Callable[..., System]) -> None:
        system = start(threads=2, prefetch=4)
        entered, let_end = threading.Semaphore(0), threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            entered.release()
            assert let_end.wait(PATIENCE)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        program_id = system.program(adapter="scripted")
        ids = [system.execute(program_id, question=str(number)) for number in range(10)]
        for _ in range(2):
            assert entered.acquire(timeout=PATIENCE)
        rows = partial(map, system.row)
        assert wait_until(lambda: all(rows(ids)), PATIENCE), "each has a row"
        stopping = threading.Thread(target=system.process.stop, args=(PATIENCE,))
        stopping.start()
        assert wait_until(lambda: system.process._intake.places.closed, PATIENCE)
        late = system.execute(program_id, question="late")
        let_end.set()
        stopping.join(PATIENCE)
        found = Counter((row.status, row.attempt) for row in rows(ids) if row is not None)
        assert found == {(ExecutionStatus.COMPLETED, 1): 2, (ExecutionStatus.PENDING, 0): 8}
        # What comes while it stops is left in the broker.
        waiting = system.broker.queues[EXECUTIONS_QUEUE]._bodies
        assert [json.loads(body)["subject"] for body in waiting] == [str(late)]
        system._stopped = True
        system.app.close()

    def test_what_does_not_end_is_given_back_and_spends_no_attempt(self, start: Callable[..., System]) -> None:
        first = start()
        entered, let_end, came_back = threading.Event(), threading.Event(), threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            entered.set()
            assert let_end.wait(PATIENCE)
            came_back.set()
            return Outcome({"answer": "too late"})

        first.scripted.run = run
        program_id = first.program(adapter="scripted")
        execution_id = first.execute(program_id, question="why")
        assert entered.wait(PATIENCE)
        first.stop(0)
        second = start(running=False)
        row = second.row(execution_id)
        assert row is not None
        assert (row.status, row.attempt) == (ExecutionStatus.PENDING, 0)
        assert not first.broker.queues[EXECUTIONS_QUEUE]._bodies  # its row says that it is due

        second.start()
        ended = second.ended(execution_id)
        let_end.set()
        assert came_back.wait(PATIENCE)
        assert (ended.attempt, ended.outputs) == (1, {"answer": "why"})
        assert second.row(execution_id) == ended

    def test_stop_while_the_database_is_away(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("workers.process.worker.RELEASE_SECONDS", 0.1)
        system = start()
        program_id = system.program(adapter="scripted")
        blocker = system.app.engine.raw_connection()
        blocker.cursor().execute("BEGIN IMMEDIATE")
        system.execute(program_id, question="why")
        assert wait_until(lambda: not system.broker.queues[EXECUTIONS_QUEUE]._bodies, PATIENCE)
        system.process.stop(0.1)
        blocker.cursor().execute("ROLLBACK")
        blocker.close()
        assert "were not given back" in caplog.text
        system._stopped = True
        system.app.close()


def test_ids_of_workers_are_their_own(start: Callable[..., System]) -> None:
    first, second = start(running=False), start(running=False)
    assert first.app.writes.lease.worker != second.app.writes.lease.worker
    assert len(first.app.writes.lease.worker) <= 128
    for system in (first, second):
        system._stopped = True
        system.app.close()
