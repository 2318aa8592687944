"""What a waiting execution waits for, and how many come before it."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, update

from dspex import uuid7
from dspex.contract.options import Lane
from store import gates
from store.executions import external
from store.gates import GateKey
from store.queues import counts, position, register
from store.queues.counts import Counted
from store.queues.position import Position, Reason
from store.queues.register import State, Worker
from store.tables import queue_counts, queues
from tests.contract.store.rows import (
    clock,
    keep_pending,
    ready_program,
    request,
    take,
)

BULK = Lane.BULK.number


class Queue:
    """One queue, in which executions come one second after the other."""

    def __init__(self, connection: Connection, holder: str | None = "") -> None:
        self.program_id = ready_program(connection)
        self._connection = connection
        self.began = clock(connection) - timedelta(hours=1)
        self._number = 0
        where = {"tenant": "default", "program_id": self.program_id, "lane": BULK, "group_key": ""}
        connection.execute(insert(queues).values(**where, holder=holder, inserted_at=self.began))

    def put(self, run_at: datetime | None = None, attempt: int = 0) -> UUID:
        self._number += 1
        asked = request(self.program_id)
        at = run_at or self.began + timedelta(seconds=self._number)
        keep_pending(self._connection, asked, run_at=at, lane=BULK, attempt=attempt)
        counts.came(self._connection, [Counted("default", self.program_id, BULK)])
        return asked.id

    def find(self, execution_id: UUID) -> Position:
        found = position.position(self._connection, execution_id)
        assert found is not None
        return found


def test_one_that_does_not_wait(connection: Connection) -> None:
    program_id = ready_program(connection)
    running, service = request(program_id), request(program_id)
    take(connection, running)
    external.create(connection, service)
    for execution_id in (running.id, service.id, uuid7()):
        assert position.position(connection, execution_id) is None


def test_another_tenants(connection: Connection) -> None:
    assert position.position(connection, Queue(connection).put(), tenant="acme") is None


def test_for_a_place(connection: Connection) -> None:
    queue, other = Queue(connection), Queue(connection)
    worker = Worker("w", "host", 7, "0.1.0", State.WORKING, {}, places=4)
    register.renew(connection, worker, lease_seconds=60, age=0)
    ids = [queue.put() for _ in range(3)]
    other.put()
    assert [queue.find(id_).ahead for id_ in ids] == [0, 1, 2]
    found = queue.find(ids[2])
    assert (found.reason, found.lane, found.gate, found.expected_seconds) == (Reason.PLACE, Lane.BULK, None, None)
    assert found.since <= clock(connection)
    # Six go in a minute, from a queue that has moved for ten.
    counts.went(connection, [Counted("default", queue.program_id, BULK)] * 6)
    counts.fold(connection, 100)
    connection.execute(update(queue_counts).values(moving_since=queue.began))
    expected = queue.find(ids[2]).expected_seconds
    assert expected is not None
    assert 30 <= expected <= 60


@pytest.mark.parametrize(("attempt", "reason"), [(0, Reason.NOT_BEFORE), (1, Reason.RETRY)])
def test_for_its_time(connection: Connection, attempt: int, reason: Reason) -> None:
    queue = Queue(connection, holder=None)
    queue.put()
    found = queue.find(queue.put(clock(connection) + timedelta(seconds=90), attempt))
    assert (found.reason, found.ahead, found.gate) == (reason, None, None)
    assert found.expected_seconds == pytest.approx(90, abs=5)


@pytest.mark.parametrize("kind", ["everything", "lane", "lm"])
def test_for_a_pause(connection: Connection, kind: str) -> None:
    key = GateKey(kind, {"everything": "", "lane": "bulk", "lm": "gpt"}[kind])
    queue = Queue(connection, holder=key.text if kind == "lm" else "")
    execution_id = queue.put()
    gates.pause(connection, GateKey("lane", "high"), by="ann")
    assert queue.find(execution_id).reason is not Reason.PAUSED
    gates.pause(connection, key, by="ann")
    found = queue.find(execution_id)
    assert (found.reason, found.gate, found.ahead, found.expected_seconds) == (Reason.PAUSED, key.text, 0, None)


def test_for_a_limit(connection: Connection) -> None:
    key = GateKey("lm", "gpt")
    queue = Queue(connection, holder=key.text)
    gates.set_limit(connection, key, gates.Limits(in_flight=1), by="ann")
    found = queue.find(queue.put())
    assert (found.reason, found.gate) == (Reason.LIMIT, "lm:*:gpt")


def test_behind_many_it_is_estimated(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position, "MOST_COUNTED", 4)
    queue = Queue(connection)
    ids = [queue.put() for _ in range(11)]
    assert [queue.find(id_).ahead for id_ in ids] == list(range(11))
