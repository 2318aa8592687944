"""Rows of queues that nobody needs any more are deleted, and nothing that waits is lost by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, select

from dspex import ExecutionOptions
from dspex.contract.options import Lane
from store import executions, programs
from store.column_types import database_now
from store.executions import Request
from store.queues import counts
from store.queues.forgetting import KEPT_SECONDS, forget
from store.queues.keys import READY, QueueKey, Swept, key_of
from store.tables import queues
from tests.contract.store.rows import (
    ALICE,
    accept,
    chosen,
    keep_pending,
    ready_program,
    request,
    take,
    waits_for_a_lock,
)
from tests.waiting import wait_until

BULK: Final = Lane.BULK


def keep_queue(
    connection: Connection, program_id: UUID, lane: int = 1, group_key: str = "", **changes: Any
) -> QueueKey:
    """An empty queue, in which nothing has moved for long; with these changes."""
    key = QueueKey("default", program_id, 1, group_key)
    old = {"holder": None, "wake_at": None, "inserted_at": database_now(-KEPT_SECONDS - 1)}
    connection.execute(queues.insert().values(key._asdict() | old | changes))
    return key


def there(connection: Connection) -> dict[QueueKey, str | None]:
    return {key_of(row): row.holder for row in connection.execute(select(queues))}


def test_what_is_empty_and_idle_is_deleted(connection: Connection) -> None:
    now = datetime.now(UTC)
    programs_ = [ready_program(connection) for _ in range(7)]
    idle, ready, wakes, young, moved, grouped, left = programs_
    keep_queue(connection, idle)
    kept = {
        keep_queue(connection, ready, holder=READY),
        keep_queue(connection, wakes, wake_at=now + timedelta(hours=1)),
        keep_queue(connection, young, inserted_at=database_now(-60.0)),
        keep_queue(connection, moved),
        keep_queue(connection, grouped, group_key="g"),
        keep_queue(connection, left),
    }
    counts.came(connection, [counts.Counted("default", moved)])
    counts.went(connection, [counts.Counted("default", moved)])
    counts.fold(connection, 10)
    keep_pending(connection, request(left))  # nobody has offered it
    assert forget(connection, None, 100) == Swept(None, 1)
    assert set(there(connection)) == kept


def test_what_waits_of_another_lane_keeps_no_queue(connection: Connection) -> None:
    program = ready_program(connection)
    keep_queue(connection, program)
    accept(connection, replace(request(program), options=ExecutionOptions(lane=BULK)))
    assert forget(connection, None, 100) == Swept(None, 1)
    assert there(connection) == {QueueKey("default", program, BULK.number): READY}


def test_what_a_program_that_is_gone_leaves_is_deleted(connection: Connection) -> None:
    """Also what stands for labels, and what has moved of late."""
    program, other = ready_program(connection), ready_program(connection)
    keep_queue(connection, program)
    keep_queue(connection, program, group_key="g")
    counts.came(connection, [counts.Counted("default", program)])
    counts.went(connection, [counts.Counted("default", program)])
    counts.fold(connection, 10)
    kept = keep_queue(connection, other, group_key="g")
    programs.archive(connection, program)
    assert forget(connection, None, 100).number == 0
    programs.destroy(connection, program)
    assert forget(connection, None, 100) == Swept(None, 2)
    assert set(there(connection)) == {kept}


def test_it_goes_on_where_it_was(connection: Connection) -> None:
    for _ in range(5):
        keep_queue(connection, ready_program(connection))
    after, deleted = None, list[int]()
    while after is not None or not deleted:
        after, number = forget(connection, after, 2)
        deleted.append(number)
    assert deleted == [2, 2, 1]
    assert there(connection) == {}


def test_what_was_deleted_is_there_again_when_something_waits(connection: Connection) -> None:
    program = ready_program(connection)
    asked = request(program)
    take(connection, asked)
    keep_queue(connection, program)
    assert forget(connection, None, 100) == Swept(None, 1)
    executions.release(connection, ALICE)
    assert chosen(connection) == [asked]


class TestBesideAnOffer:
    """Whatever comes first, what waits is found."""

    @pytest.fixture
    def engine(self, engine: Engine) -> Engine:
        if engine.dialect.name == "sqlite":
            pytest.skip("it has one writer at a time")
        return engine

    @pytest.fixture
    def asked(self, engine: Engine) -> Request:
        """A request for a program with an empty queue."""
        with engine.begin() as connection:
            asked = request(ready_program(connection))
            keep_queue(connection, asked.program_id)
        return asked

    def found(self, engine: Engine, asked: Request) -> None:
        with engine.begin() as connection:
            assert there(connection) == {QueueKey("default", asked.program_id, 1): READY}
            assert chosen(connection) == [asked]

    def test_that_is_not_committed(self, engine: Engine, asked: Request) -> None:
        with engine.begin() as offers, engine.begin() as forgets:
            accept(offers, asked)
            assert forget(forgets, None, 100) == Swept(None, 0)
        self.found(engine, asked)

    def test_that_is_committed_between_the_look_and_the_lock(self, engine: Engine, asked: Request) -> None:
        looked = list[str]()

        def commit(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if not looked and "FOR UPDATE" in statement:
                looked.append(statement)
                with engine.begin() as offers:
                    accept(offers, asked)

        with engine.begin() as forgets:
            event.listen(forgets, "before_cursor_execute", commit)
            assert forget(forgets, None, 100) == Swept(None, 0)
        assert len(looked) == 1
        self.found(engine, asked)

    @pytest.mark.parametrize("deleted", [True, False])
    def test_that_comes_while_it_is_deleted(self, engine: Engine, asked: Request, deleted: bool) -> None:
        def offer() -> None:
            with engine.begin() as offers:
                accept(offers, asked)

        with ThreadPoolExecutor(1) as threads, engine.connect() as forgets:
            assert forget(forgets, None, 100) == Swept(None, 1)
            offered = threads.submit(offer)
            wait_until(lambda: offered.done() or waits_for_a_lock(engine), "it waits")
            assert not offered.done()
            if deleted:
                forgets.commit()
            else:
                forgets.rollback()
            offered.result()
        self.found(engine, asked)

    def test_two_forget_at_once(self, engine: Engine, asked: Request) -> None:
        with engine.begin() as first, engine.begin() as second:
            assert forget(first, None, 100) == Swept(None, 1)
            assert forget(second, None, 100) == Swept(None, 0)
        with engine.begin() as connection:
            assert there(connection) == {}
