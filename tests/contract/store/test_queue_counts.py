"""What waits is counted exactly, whoever counts at the same time; what is wrong is found and corrected."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update

from dspex import uuid7
from store.queues import counts
from store.queues.counts import Counted
from store.tables import queue_counts, queue_moves, queues
from tests.contract.store.rows import (
    at_once,
    clock,
    keep_pending,
    ready_program,
    request,
)

HIGH, DEFAULT, BULK = 0, 1, 2


def kept(connection: Connection) -> dict[Counted, int]:
    c = queue_counts.c
    return {counts.of(row): row.waiting for row in connection.execute(select(*c)) if row.waiting}


def moving(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(queue_moves)).scalar_one()


def counted_with(connection: Connection, key: Counted) -> tuple[int, int, int, int]:
    c = queue_counts.c
    row = connection.execute(select(queue_counts).where(c.program_id == key.program_id, c.lane == key.lane)).one()
    return row.came, row.went, row.came_before, row.went_before


def pending(
    connection: Connection, program_id: UUID, run_at: datetime | None, *, lane: int = DEFAULT, group_key: str = ""
) -> UUID:
    """An execution that waits in its queue, uncounted."""
    asked = request(program_id)
    keep_pending(connection, asked, run_at=run_at, lane=lane, group_key=group_key)
    return asked.id


def ready(connection: Connection, key: Counted, group_key: str = "") -> None:
    row = {**key._asdict(), "group_key": group_key, "holder": "", "inserted_at": clock(connection)}
    connection.execute(insert(queues).values(row))


class TestFold:
    def test_of_nothing(self, connection: Connection) -> None:
        counts.came(connection, [])
        counts.went(connection, [])
        assert moving(connection) == 0
        assert counts.fold(connection, 10) == 0

    def test_adds_up(self, connection: Connection) -> None:
        one, other = uuid7(), uuid7()
        bulk, his = Counted("default", one, BULK), Counted("acme", one, BULK)
        counts.came(connection, [bulk, bulk, bulk, his, Counted("default", other, HIGH)])
        counts.went(connection, [bulk])
        assert counts.fold(connection, 2) == 2
        assert counts.fold(connection, 10) == 2
        assert (moving(connection), counts.fold(connection, 10)) == (0, 0)
        assert kept(connection) == {bulk: 2, his: 1, Counted("default", other, HIGH): 1}
        counts.went(connection, [bulk, bulk, his])
        counts.fold(connection, 10)
        assert kept(connection) == {Counted("default", other, HIGH): 1}

    def test_keeps_two_periods(self, connection: Connection) -> None:
        key = Counted("default", uuid7(), DEFAULT)

        def later(periods: int) -> None:
            """As if so much time had passed."""
            connection.execute(update(queue_counts).values(period=queue_counts.c.period - periods))

        def move(came: int, went: int) -> tuple[int, int, int, int]:
            counts.moved(connection, {key: came}, {key: went})
            counts.fold(connection, 10)
            return counted_with(connection, key)

        # A minute may end between two lines: the same rows come out one period later.
        assert move(5, 1) == (5, 1, 0, 0)
        later(1)
        assert move(2, 2)[2:] == (5, 1)
        since = connection.execute(select(queue_counts.c.moving_since)).scalar_one()
        later(5)
        assert move(1, 0) == (1, 0, 0, 0)
        assert connection.execute(select(queue_counts.c.moving_since)).scalar_one() > since
        assert kept(connection) == {key: 5}

    def test_finds_the_oldest_of_all_groups(self, connection: Connection) -> None:
        program_id, now = ready_program(connection), clock(connection)
        key = Counted("default", program_id, BULK)
        for minutes, group in ((3, "a"), (9, "b"), (5, "b"), (30, "no queue")):
            pending(connection, program_id, now - timedelta(minutes=minutes), lane=BULK, group_key=group)
        pending(connection, program_id, None, lane=BULK, group_key="a")  # of an older worker
        pending(connection, program_id, now - timedelta(minutes=99), lane=HIGH, group_key="a")
        for group in ("a", "b"):
            ready(connection, key, group)
        counts.came(connection, [key])
        counts.fold(connection, 10)
        found = connection.execute(select(queue_counts.c.oldest_at)).scalar_one()
        assert found == now - timedelta(minutes=9)

    def test_loses_nothing_when_many_move_and_fold_at_once(self, engine: Engine) -> None:
        keys = [Counted("default", uuid7(), lane) for lane in (HIGH, BULK) for _ in range(3)]
        threads, rounds = 6, 12

        def work(number: int) -> Callable[[], None]:
            def run() -> None:
                chosen = random.Random(number)
                for _ in range(rounds):
                    with engine.begin() as connection:
                        if number % 3:
                            counts.came(connection, chosen.choices(keys, k=5) + keys)
                            counts.went(connection, keys[::-1])
                        else:
                            counts.fold(connection, 3)

            return run

        at_once([work(number) for number in range(threads)])
        with engine.begin() as connection:
            while counts.fold(connection, 1000):
                pass
            assert sum(kept(connection).values()) == 4 * rounds * 5


class TestRepair:
    @pytest.fixture
    def program_id(self, connection: Connection) -> UUID:
        return ready_program(connection)

    def test_corrects_what_nobody_has_counted(self, connection: Connection, program_id: UUID) -> None:
        now = clock(connection)
        here, there = Counted("default", program_id, BULK), Counted("default", program_id, HIGH)
        for key in (here, there):
            ready(connection, key)
            for _ in range(3):
                pending(connection, program_id, now, lane=key.lane)
        pending(connection, program_id, None, lane=BULK)  # an external one
        counts.moved(connection, {there: 7}, {})
        counts.fold(connection, 10)
        counts.moved(connection, {there: 2}, {})  # 9 in all, of which 2 are not folded yet
        assert counts.repair(connection, None, 10) == (None, 2)
        counts.fold(connection, 10)
        assert kept(connection) == {here: 3, there: 3}
        assert counts.repair(connection, None, 10) == (None, 0)

    def test_goes_through_all_of_them(self, connection: Connection, program_id: UUID) -> None:
        keys = [Counted(tenant, program_id, lane) for tenant in ("acme", "default") for lane in (HIGH, BULK)]
        counts.came(connection, [*keys, Counted("default", uuid7(), HIGH)])
        counts.fold(connection, 10)
        after, rounds, corrected = None, 0, 0
        while rounds == 0 or after is not None:
            after, found = counts.repair(connection, after, 2)
            rounds, corrected = rounds + 1, corrected + found
        assert (rounds, corrected) == (3, 5)
        counts.fold(connection, 10)
        assert kept(connection) == {}

    def test_two_at_once_correct_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            key = Counted("default", ready_program(connection), BULK)
            ready(connection, key)
            for _ in range(3):
                pending(connection, key.program_id, clock(connection), lane=BULK)

        def repair() -> None:
            with engine.begin() as connection:
                counts.repair(connection, None, 10)

        at_once([repair] * 4)
        with engine.begin() as connection:
            counts.fold(connection, 10)
            assert kept(connection) == {key: 3}

    def test_leaves_what_is_too_deep(
        self, connection: Connection, program_id: UUID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(counts, "DEEPEST", 2)
        key = Counted("default", program_id, BULK)
        ready(connection, key)
        for _ in range(3):
            pending(connection, program_id, clock(connection), lane=BULK)
        assert counts.repair(connection, None, 10) == (None, 0)

    def test_forgets_what_has_not_moved(self, connection: Connection, program_id: UUID) -> None:
        idle, waiting = Counted("default", program_id, HIGH), Counted("default", program_id, BULK)
        pending(connection, program_id, clock(connection), lane=BULK)
        counts.moved(connection, {idle: 1, waiting: 1}, {idle: 1})
        counts.fold(connection, 10)
        counts.repair(connection, None, 10)
        assert connection.execute(select(func.count()).select_from(queue_counts)).scalar_one() == 2
        connection.execute(update(queue_counts).values(period=queue_counts.c.period - 99))
        assert counts.repair(connection, None, 10) == (None, 0)
        assert connection.execute(select(queue_counts.c.lane)).scalars().all() == [BULK]
