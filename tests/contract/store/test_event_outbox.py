"""Events of executions that have ended, until they are confirmed."""

from __future__ import annotations

from sqlalchemy import Connection, Engine

from dspex import uuid7
from store import event_outbox, executions
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.tables import event_outbox as event_outbox_table
from tests.contract.store.rows import (
    BOB,
    EXPIRED,
    accept,
    completed,
    failed,
    ready_program,
    request,
    take,
)


def test_the_end_of_an_execution_adds_one_event(connection: Connection) -> None:
    program_id = ready_program(connection)
    done, stale = request(program_id), request(program_id)
    end = completed(done, take(connection, done))
    zombie = take(connection, stale, BOB)
    executions.release(connection, BOB)
    assert executions.finish(connection, 0, [end, failed(stale, zombie)]) == [True, False]
    assert event_outbox.pending(connection, [done.id, stale.id]) == {done.id}
    event_outbox.sent(connection, [OutboxEntry(done.id, end.lock_version)])
    assert event_outbox.pending(connection, [done.id]) == {done.id}  # of an end before this one
    event_outbox.sent(connection, [OutboxEntry(done.id, end.lock_version + 1)])
    assert event_outbox.pending(connection, [done.id]) == set()
    # As where the commit arrived and its answer did not: it is ended, and has been told.
    assert executions.finish(connection, 0, [end]) == [True]
    assert event_outbox.pending(connection, [done.id]) == set()


def test_what_is_cancelled_at_once_has_an_event_too(connection: Connection) -> None:
    waiting, running = (request(ready_program(connection)) for _ in "ab")
    accept(connection, waiting)
    take(connection, running)
    for asked in (waiting, running):
        executions.cancel(connection, asked.id, by="ann")
    assert event_outbox.pending(connection, [waiting.id, running.id]) == {waiting.id}


def test_the_relay_waits_a_while_and_then_longer_each_time(connection: Connection) -> None:
    first, later = uuid7(), uuid7()
    event_outbox.add(connection, [OutboxEntry(first, 2)], EXPIRED)
    event_outbox.add(connection, [OutboxEntry(later, 2)], 60)
    assert event_outbox.anything_due(connection)
    assert event_outbox.due(connection, EXPIRED, 10) == [Identity(first)]
    c = event_outbox_table.c
    for tries in range(1, 10):
        before = connection.execute(event_outbox_table.select().where(c.execution_id == first)).one()
        assert before.tries == tries
        assert event_outbox.due(connection, EXPIRED, 10) == [Identity(first)]
        after = connection.execute(event_outbox_table.select().where(c.execution_id == first)).one()
        # Here the interval is negative, and grows all the same.
        assert (before.due_at > after.due_at) == (tries <= 6)
    assert event_outbox.due(connection, 60.0, 10) == [Identity(first)]
    assert event_outbox.due(connection, 60.0, 10) == []


def test_what_is_taken_has_a_bound(connection: Connection) -> None:
    event_outbox.add(connection, [OutboxEntry(uuid7(), 2) for _ in range(25)], EXPIRED)
    assert [len(event_outbox.due(connection, 60.0, 10)) for _ in range(4)] == [10, 10, 5, 0]


def test_two_relays_take_different_ones(engine: Engine) -> None:
    with engine.begin() as connection:
        event_outbox.add(connection, [OutboxEntry(uuid7(), 2) for _ in range(20)], EXPIRED)
    if engine.dialect.name == "postgresql":
        with engine.begin() as first, engine.begin() as second:
            one, other = (set(event_outbox.due(connection, 60.0, 10)) for connection in (first, second))
    else:
        with engine.begin() as first:
            one = set(event_outbox.due(first, 60.0, 10))
        with engine.begin() as second:
            other = set(event_outbox.due(second, 60.0, 10))
    assert (len(one), len(other)) == (10, 10)
    assert not one & other


def test_the_event_of_another_end_begins_anew(connection: Connection) -> None:
    id_ = uuid7()
    for version in (2, 5):
        event_outbox.add(connection, [OutboxEntry(id_, version)], EXPIRED)
        assert event_outbox.due(connection, 60.0, 10) == [Identity(id_)]
    event_outbox.sent(connection, [OutboxEntry(id_, 2)])
    assert event_outbox.pending(connection, [id_]) == {id_}
