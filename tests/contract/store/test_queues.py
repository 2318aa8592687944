"""Queues: what waits is written down, offered, and found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, insert, null, select, update

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, Usage, uuid7
from dspex.contract.options import Lane
from store import executions
from store.column_types import database_now
from store.executions import Carried, Claimed, NoProgram, Request, Retry, Running, Waiting, external
from store.queues.keys import READY, QueueKey, Swept
from store.queues.offers import offer
from store.queues.reconciling import reconcile
from store.tables import early_cancels, queue_moves, queues
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    EXPIRED,
    accept,
    chosen,
    completed,
    failed,
    get,
    left_by_an_older_worker,
    ready_program,
    request,
    take,
    taken,
)

NEVER_YET: Final = datetime(2900, 1, 1, tzinfo=UTC)


def holders(connection: Connection) -> dict[QueueKey, str | None]:
    found = connection.execute(select(queues)).all()
    return {QueueKey(row.tenant, row.program_id, row.lane, row.group_key): row.holder for row in found}


def due(connection: Connection, execution_id: UUID) -> tuple[datetime | None, datetime | None]:
    c = executions_table.c
    return tuple(connection.execute(select(c.run_at, c.due_at).where(c.id == execution_id)).one())


def test_what_finds_no_place_waits_in_its_queue(connection: Connection) -> None:
    program = ready_program(connection)
    first, second = request(program), request(program)
    urgent = replace(request(program), options=ExecutionOptions(lane=Lane.HIGH))
    claims = executions.claim(connection, ALICE, [first, second, urgent], now=[True, False, False])
    assert isinstance(claims[0], Claimed)
    assert claims[1:] == [Waiting(second.id), Waiting(urgent.id)]
    waits = get(connection, second.id)
    assert (waits.status, waits.attempt, waits.lock_version, waits.worker) == (ExecutionStatus.PENDING, 0, 1, None)
    run_at, due_at = due(connection, second.id)
    assert run_at is not None
    assert abs(waits.inserted_at - run_at) < timedelta(seconds=1)
    assert due_at is not None
    assert due_at > NEVER_YET  # for relays of earlier versions
    assert holders(connection) == {QueueKey("default", program, 1): READY, QueueKey("default", program, 0): READY}


def test_what_may_run_now_touches_no_queue(connection: Connection) -> None:
    asked = request(ready_program(connection))
    [claimed] = executions.claim(connection, ALICE, [asked], now=[True])
    assert isinstance(claimed, Claimed)
    assert holders(connection) == {}
    assert executions.claim(connection, BOB, [asked], now=[True]) == [Running(asked.id)]


@pytest.mark.parametrize("place", [True, False])
def test_what_may_run_later_waits_for_its_time(connection: Connection, *, place: bool) -> None:
    program, later = ready_program(connection), datetime.now(UTC) + timedelta(hours=1)
    asked = replace(request(program), options=ExecutionOptions(not_before=later))
    assert executions.claim(connection, ALICE, [asked], now=[place]) == [Waiting(asked.id)]
    assert due(connection, asked.id)[0] == later
    [row] = connection.execute(select(queues)).all()
    assert (row.holder, row.wake_at) == (None, later)
    accept(connection, request(program))
    [row] = connection.execute(select(queues)).all()
    assert (row.holder, row.wake_at) == (READY, None)


def test_the_earliest_time_wakes_a_queue(connection: Connection) -> None:
    key, now = QueueKey("default", uuid7(), 1), datetime.now(UTC)
    hours = [now + timedelta(hours=number) for number in range(4)]
    offer(connection, [(key, hours[3]), (key, hours[2])])
    offer(connection, [(key, hours[1])])
    offer(connection, [(key, hours[3])])
    [row] = connection.execute(select(queues)).all()
    assert (row.holder, row.wake_at) == (None, hours[1])


def test_a_message_that_comes_again_changes_nothing(connection: Connection) -> None:
    asked = request(ready_program(connection))
    accept(connection, asked)
    for place in (False, True):
        assert executions.claim(connection, BOB, [asked], now=[place]) == [Waiting(asked.id)]
    assert get(connection, asked.id).attempt == 0
    nobody = request(uuid7())
    assert executions.claim(connection, BOB, [nobody], now=[False]) == [NoProgram(nobody.id)]


def test_what_is_lost_is_left_to_the_rescue(connection: Connection) -> None:
    asked = request(ready_program(connection))
    take(connection, asked, replace(ALICE, seconds=EXPIRED))
    assert executions.claim(connection, BOB, [asked], now=[True]) == [Running(asked.id)]
    assert executions.rescue(connection, 10) == [asked.identity]
    found = get(connection, asked.id)
    assert (found.status, found.attempt) == (ExecutionStatus.PENDING, 1)
    assert due(connection, asked.id)[0] == found.inserted_at
    assert holders(connection) == {QueueKey("default", asked.program_id, 1): READY}
    assert executions.rescue(connection, 10) == []


def test_an_early_cancel_marks_the_new_execution(connection: Connection) -> None:
    asked = [request(ready_program(connection)) for _ in range(2)]
    other = request(asked[0].program_id)
    for one in asked:
        values = {"execution_id": one.id, "tenant": one.tenant, "by": "/tests", "inserted_at": database_now()}
        connection.execute(insert(early_cancels).values(values))
    claims = executions.claim(connection, ALICE, [*asked, other], now=[True, False, True])
    assert [taken(claims[0]).cancel_requested, taken(claims[2]).cancel_requested] == [True, False]
    assert [get(connection, one.id).cancel_requested for one in (*asked, other)] == [True, True, False]


def back(connection: Connection, asked: Request, claimed: Claimed, how: str) -> None:
    if how == "retry":
        again = Retry(asked.id, claimed.lock_version, 0.0, 1, ERROR, Usage(), Carried())
        assert executions.retry(connection, [again]) == [True]
    elif how == "release":
        assert executions.release(connection, ALICE) == 1
    else:
        executions.finish(connection, 0, [failed(asked, claimed)])
        assert executions.replay(connection, [asked.id], by="/tests") == 1


@pytest.mark.parametrize("how", ["retry", "release", "replay"])
def test_whatever_becomes_pending_is_offered(connection: Connection, how: str) -> None:
    asked = request(ready_program(connection))
    back(connection, asked, take(connection, asked), how)
    run_at, due_at = due(connection, asked.id)
    assert run_at is not None
    assert run_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert due_at is not None
    assert due_at > NEVER_YET
    assert holders(connection) == {QueueKey("default", asked.program_id, 1): READY}
    assert executions.adopt(connection, 10) == 0


def test_a_retry_waits_for_its_time(connection: Connection) -> None:
    asked = request(ready_program(connection))
    claimed = take(connection, asked)
    again = Retry(asked.id, claimed.lock_version, 60.0, 1, ErrorDetail(code="x", message=""), Usage(), Carried())
    executions.retry(connection, [again])
    [row] = connection.execute(select(queues)).all()
    assert row.holder is None
    assert row.wake_at == due(connection, asked.id)[0]


def test_what_older_workers_leave_is_adopted(connection: Connection) -> None:
    program = ready_program(connection)
    asked = [request(program) for _ in range(3)]
    left_by_an_older_worker(connection, asked[0])
    left_by_an_older_worker(connection, *asked[1:], due_in=3600.0)
    external.create(connection, request(program))
    assert executions.adopt(connection, 10) == 1
    assert executions.adopt(connection, 10) == 0
    assert [due(connection, one.id)[0] is None for one in asked] == [False, True, True]
    # Its message came, and was published by a worker from before.
    assert executions.claim(connection, ALICE, [asked[1]], now=[False]) == [Waiting(asked[1].id)]
    assert due(connection, asked[1].id)[0] is not None
    assert holders(connection) == {QueueKey("default", program, 1): READY}
    ended = request(program)
    executions.finish(connection, 0, [completed(ended, take(connection, ended))])
    connection.execute(update(executions_table).values(run_at=null()).where(executions_table.c.id == ended.id))
    executions.claim(connection, ALICE, [ended], now=[False])
    assert due(connection, ended.id)[0] is None


def test_what_workers_from_before_0004_left_is_adopted_by_its_lease(connection: Connection) -> None:
    program = ready_program(connection)
    due, held = request(program), request(program)
    left_by_an_older_worker(connection, due, held)
    c = executions_table.c
    for one, seconds in ((due, EXPIRED), (held, 60.0)):
        changes = {"due_at": None, "lease_expires_at": database_now(seconds)}
        connection.execute(update(executions_table).where(c.id == one.id).values(changes))
    assert executions.anything_due(connection)
    assert executions.adopt(connection, 10) == 1
    assert executions.adopt(connection, 10) == 0
    assert not executions.anything_due(connection)
    assert chosen(connection) == [due]


def test_a_cancelled_one_waits_no_more(connection: Connection) -> None:
    asked = [request(ready_program(connection)) for _ in range(2)]
    accept(connection, *asked)
    executions.cancel(connection, asked[0].id, by="/tests")
    moves = connection.execute(select(queue_moves.c.program_id, queue_moves.c.came, queue_moves.c.went)).all()
    counted = {
        one.program_id: sum(row.came - row.went for row in moves if row.program_id == one.program_id) for one in asked
    }
    assert counted == {asked[0].program_id: 0, asked[1].program_id: 1}


def test_the_sweep_finds_nothing_and_mends_what_is_wrong(connection: Connection) -> None:
    later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))
    for _ in range(5):
        asked = request(ready_program(connection))
        accept(connection, asked, replace(request(asked.program_id), options=later))
    external.create(connection, request(ready_program(connection)))
    assert reconcile(connection, None, 10) == Swept(None, 0)
    connection.execute(update(queues).values(holder=null(), wake_at=later.not_before))
    after, mended = None, list[int]()
    while after is not None or not mended:
        after, number = reconcile(connection, after, 2)
        mended.append(number)
    assert mended == [2, 2, 1]
    assert list(holders(connection).values()) == [READY] * 5
    connection.execute(delete(queues))
    assert reconcile(connection, None, 10) == Swept(None, 5)
    assert reconcile(connection, None, 10) == Swept(None, 0)
