"""What waits of an archived program ends at once, in batches; what runs goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update

from dspex import ErrorCode, ExecutionOptions, ExecutionStatus, Usage
from dspex.contract.options import Lane
from store import counters, event_outbox, executions, programs
from store.column_types import database_now
from store.counters import Counts
from store.executions import Carried, Execution, Request, Retry, archived
from store.queues.archived import ARCHIVED
from store.queues.keys import READY
from store.tables import NOW, queues
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    ERROR,
    completed,
    get,
    ready_program,
    request,
    row,
    take,
    told,
)

LATER = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))


def accept(connection: Connection, *asked: Request) -> None:
    """Write them down as waiting, each in its queue."""
    executions.claim(connection, ALICE, asked, now=[False] * len(asked))


def wait(connection: Connection, *asked: Request, seconds: float = 0.0) -> None:
    """Put those that are pending into their queues, for so many seconds at least."""
    c, far, at = executions_table.c, database_now(1e9), database_now(seconds)
    for one in asked:
        lane = (one.options.lane or Lane.DEFAULT).number
        which = (c.id == one.id) & (c.tenant == one.tenant)
        connection.execute(update(executions_table).where(which).values(run_at=at, due_at=far, lane=lane))
        key = {"tenant": one.tenant, "program_id": one.program_id, "lane": lane, "group_key": ""}
        there = select(queues.c.lane).filter_by(**key)
        if connection.execute(there).one_or_none() is None:
            held = {"wake_at": at} if seconds else {"holder": READY}
            connection.execute(insert(queues).values(**key, **held, inserted_at=NOW))


def end(connection: Connection, limit: int = 10) -> list[Execution]:
    """Everything that can be ended."""
    found, more = list[Execution](), True
    while more:
        ended = archived.end_waiting(connection, 5, limit)
        assert len(ended.executions) <= limit
        found += ended.executions
        more = ended.more
    return found


def holders(connection: Connection, program_id: UUID) -> dict[int, str | None]:
    """The holders of a program's queues, by lane."""
    c = queues.c
    found = connection.execute(select(c.lane, c.holder).where(c.program_id == program_id))
    return {row.lane: row.holder for row in found}


def test_what_waits_ends_and_what_runs_goes_on(connection: Connection) -> None:
    program_id = ready_program(connection)
    waits, scheduled, urgent, retried, running = (request(program_id) for _ in range(5))
    scheduled = replace(scheduled, options=LATER)
    urgent = replace(urgent, options=ExecutionOptions(lane=Lane.HIGH))
    accept(connection, waits, scheduled, urgent)
    claimed = take(connection, running)
    before = take(connection, retried)
    used = Usage(calls=1, input_tokens=7, output_tokens=3, cost=0.5)
    again = Retry(retried.id, before.lock_version, 60.0, 1, ERROR, used, Carried())
    assert executions.retry(connection, [again]) == [True]
    wait(connection, retried)
    assert not archived.anything_held(connection)
    programs.archive(connection, program_id)
    assert archived.anything_held(connection)
    assert set(holders(connection, program_id).values()) == {ARCHIVED}
    ended = {one.id: one for one in end(connection)}
    assert ended == {id_: get(connection, id_) for id_ in (waits.id, scheduled.id, urgent.id, retried.id)}
    for one in ended.values():
        assert one.status == ExecutionStatus.FAILED
        assert one.error is not None
        assert one.error.code == ErrorCode.PROGRAM_ARCHIVED
        assert one.finished_at is not None
    assert told(connection, waits.id) == [("pending", 0, "alice"), ("failed", 0, "archive")]
    assert counters.totals(connection, program_id) == Counts(
        failed=4, input_tokens=7, output_tokens=3, cost=0.5, tokens_known=4, cost_known=4,
        last_executed_at=counters.totals(connection, program_id).last_executed_at,
    )  # fmt: skip
    assert event_outbox.pending(connection, list(ended)) == set(ended)
    assert {one.id for one in executions.page(connection, error_code="program_archived").items} == set(ended)
    assert not archived.anything_held(connection)
    assert set(holders(connection, program_id).values()) == {None}
    assert executions.finish(connection, 0, [completed(running, claimed)]) == [True]
    assert end(connection) == []


def test_it_goes_in_batches_and_other_programs_are_left(connection: Connection) -> None:
    program_id, other = ready_program(connection), request(ready_program(connection))
    asked = [request(program_id) for _ in range(5)]
    accept(connection, *asked, other)
    programs.archive(connection, program_id)
    first = archived.end_waiting(connection, 5, 2)
    assert (len(first.executions), first.more) == (2, True)
    assert holders(connection, program_id) == {1: ARCHIVED}
    assert len(end(connection, 2)) == 3
    assert get(connection, other.id).status == ExecutionStatus.PENDING
    assert holders(connection, other.program_id) == {1: READY}
    assert counters.totals(connection, program_id).failed == 5


def test_what_was_to_be_cancelled_is_cancelled(connection: Connection) -> None:
    asked = request(ready_program(connection))
    claimed = take(connection, asked)
    executions.cancel(connection, asked.id, by="ann")
    again = Retry(asked.id, claimed.lock_version, 0.0, 1, ERROR, Usage(), Carried())
    executions.retry(connection, [again])
    wait(connection, asked)
    programs.archive(connection, asked.program_id)
    (ended,) = end(connection)
    assert ended.status == ExecutionStatus.CANCELLED
    assert counters.totals(connection, asked.program_id).cancelled == 1


def test_what_comes_meanwhile_ends_too(connection: Connection) -> None:
    program_id = ready_program(connection)
    first, second = request(program_id), request(program_id)
    accept(connection, first)
    programs.archive(connection, program_id)
    accept(connection, second)
    assert {one.id for one in end(connection)} == {first.id, second.id}


def test_a_program_that_is_restored_keeps_what_waits(connection: Connection) -> None:
    asked = request(ready_program(connection))
    accept(connection, asked)
    before = row(connection, asked.id)
    programs.restore(connection, programs.archive(connection, asked.program_id))
    assert holders(connection, asked.program_id) == {1: READY}
    assert end(connection) == []
    assert row(connection, asked.id) == before


def test_what_another_transaction_holds_is_left_to_it(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer")
    with engine.begin() as connection:
        program_id = ready_program(connection)
        held, free = request(program_id), request(program_id)
        accept(connection, held, free)
        programs.archive(connection, program_id)
    with engine.begin() as other, engine.begin() as connection:
        assert executions.cancel(other, held.id, by="ann").status == ExecutionStatus.CANCELLED
        assert [one.id for one in end(connection)] == [free.id]
        assert archived.anything_held(connection)
    with engine.begin() as connection:
        assert end(connection) == []
        assert not archived.anything_held(connection)


def test_what_is_accepted_after_it_was_restored_is_left_alone(engine: Engine) -> None:
    """It is restored when a batch has seen its queue, and before it ends what waits there."""
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer")
    with engine.begin() as connection:
        first = request(ready_program(connection))
        second = request(first.program_id)
        accept(connection, first)
        read = programs.archive(connection, first.program_id)
    seen = list[str]()

    def restore(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)
        if len(seen) == 1:
            with engine.begin() as other:
                programs.restore(other, read)
                accept(other, second)

    with engine.connect() as connection, connection.begin():
        event.listen(connection, "after_cursor_execute", restore)
        assert archived.end_waiting(connection, 5, 10) == archived.Ended([], more=False)
    assert seen
    with engine.begin() as connection:
        assert {get(connection, one.id).status for one in (first, second)} == {ExecutionStatus.PENDING}
