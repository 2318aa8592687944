"""The backlog in figures: they are right at any moment, of what the tenant may see, and in pages."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, update

from dspex import uuid7
from dspex.contract.options import Lane
from dspex.errors import InvalidValues
from store.database.identity import Identity
from store.database.tenancy import ALL
from store.queues import counts, figures
from store.queues.counts import Counted
from store.queues.figures import By, Figures, Scope
from store.tables import executions as executions_table
from store.tables import queue_counts, queues
from tests.contract.store.rows import clock, ready_program, request, take

MINE = Scope("default")
MINE_ID = uuid7()


def waiting(connection: Connection, scope: Scope = MINE) -> dict[Lane, int]:
    return {row.lane: row.waiting for row in figures.lanes(connection, scope) if row.lane is not None}


def rows(connection: Connection, by: By, scope: Scope, limit: int = 2) -> list[Figures]:
    """All pages, and that no page is too long."""
    found, cursor = list[Figures](), None
    while True:
        page = figures.page(connection, by, scope, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        found += page.items
        if (cursor := page.next_cursor) is None:
            return found


class TestLanes:
    def test_of_nothing(self, connection: Connection) -> None:
        assert figures.lanes(connection, MINE) == [Figures(lane=lane) for lane in Lane]
        assert figures.total(figures.lanes(connection, MINE)) == Figures()
        assert Figures().expected_seconds == 0

    def test_what_is_not_added_up_yet_counts_too(self, connection: Connection) -> None:
        program_id = uuid7()
        counts.came(connection, [Counted("default", program_id, 2)] * 5)
        assert waiting(connection) == {Lane.HIGH: 0, Lane.DEFAULT: 0, Lane.BULK: 5}
        counts.fold(connection, 10)
        assert waiting(connection)[Lane.BULK] == 5
        counts.went(connection, [Counted("default", program_id, 2)] * 2)
        counts.came(connection, [Counted("acme", program_id, 0)])
        assert waiting(connection) == {Lane.HIGH: 0, Lane.DEFAULT: 0, Lane.BULK: 3}
        assert waiting(connection, Scope(ALL)) == {Lane.HIGH: 1, Lane.DEFAULT: 0, Lane.BULK: 3}
        assert waiting(connection, Scope("default", uuid7()))[Lane.BULK] == 0
        assert waiting(connection, Scope("default", program_id, Lane.BULK)) == {Lane.BULK: 3}

    def test_what_runs(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        for lane in (0, 0, 2):
            asked = request(program_id)
            take(connection, asked)
            connection.execute(update(executions_table).where(executions_table.c.id == asked.id).values(lane=lane))
        assert [row.running for row in figures.lanes(connection, MINE)] == [2, 0, 1]
        assert figures.total(figures.lanes(connection, MINE)).running == 3
        [row] = rows(connection, By.PROGRAM, MINE)
        assert (row.program_id, row.running, row.waiting) == (program_id, 3, 0)

    def test_rates_are_of_the_last_minute_or_two(self, connection: Connection) -> None:
        counts.moved(connection, {Counted("default", uuid7()): 600}, {})
        counts.fold(connection, 10)
        key = Counted("default", uuid7())
        counts.moved(connection, {key: 600}, {key: 300})
        counts.fold(connection, 10)
        # As if both moved for ten minutes; the first not in the last two.
        c, now = queue_counts.c, clock(connection)
        connection.execute(update(queue_counts).values(moving_since=now - timedelta(minutes=10)))
        connection.execute(update(queue_counts).where(c.program_id != key.program_id).values(period=c.period - 3))
        found = figures.total(figures.lanes(connection, MINE))
        assert 300 <= found.came_per_minute <= 600
        assert found.went_per_minute == pytest.approx(found.came_per_minute / 2)
        assert found.waiting == 900
        assert found.expected_seconds == pytest.approx(900 / found.went_per_minute * 60)
        connection.execute(update(queue_counts).values(period=c.period - 3))
        found = figures.total(figures.lanes(connection, MINE))
        assert (found.waiting, found.went_per_minute, found.expected_seconds) == (900, 0, None)

    def test_a_rate_of_what_has_just_begun_is_of_this_time(self, connection: Connection) -> None:
        counts.moved(connection, {Counted("default", uuid7()): 100}, {})
        counts.fold(connection, 10)
        found = figures.total(figures.lanes(connection, MINE))
        assert 100 < found.came_per_minute <= 100 * 60 / figures.LEAST_SECONDS

    def test_the_oldest(self, connection: Connection) -> None:
        one, other, gone = (Counted("default", uuid7(), lane) for lane in (2, 2, 1))
        for key in (one, other, gone):
            counts.came(connection, [key])
        counts.went(connection, [gone])
        counts.fold(connection, 10)
        now = clock(connection)
        for key, minutes in ((one, 5), (other, 9), (gone, 30)):
            of_it = queue_counts.c.program_id == key.program_id
            connection.execute(update(queue_counts).where(of_it).values(oldest_at=now - timedelta(minutes=minutes)))
        assert [row.oldest_at for row in figures.lanes(connection, MINE)] == [None, None, now - timedelta(minutes=9)]
        assert figures.total(figures.lanes(connection, MINE)).oldest_at == now - timedelta(minutes=9)


class TestPages:
    def test_those_with_most_come_first(self, connection: Connection) -> None:
        programs = sorted(uuid7() for _ in range(5))
        for program_id, number in zip(programs, (3, 1, 3, 7, 3), strict=True):
            counts.moved(connection, {Counted("default", program_id, 2): number}, {})
        counts.moved(connection, {Counted("acme", programs[0], 0): 5}, {})
        counts.fold(connection, 3)
        first, second, third, fourth, fifth = programs
        found = [(row.program_id, row.waiting) for row in rows(connection, By.PROGRAM, MINE)]
        assert found == [(fourth, 7), (first, 3), (third, 3), (fifth, 3), (second, 1)]
        everything = [(row.tenant, row.program_id) for row in rows(connection, By.PROGRAM, Scope(ALL))]
        assert everything[:3] == [("default", fourth), ("acme", first), ("default", first)]
        assert [(row.tenant, row.waiting) for row in rows(connection, By.TENANT, Scope(ALL), 1)] == [
            ("default", 17),
            ("acme", 5),
        ]
        assert [row.tenant for row in rows(connection, By.TENANT, MINE)] == ["default"]

    @pytest.mark.parametrize(
        "cursor", ["", "x", "a" * 400, "NSBk", "LTEgZGVmYXVsdCAx", "OTk5OTk5OTk5OTk5OTk5OTk5OSBhIDE"]
    )
    def test_a_cursor_that_is_none_is_refused(self, connection: Connection, cursor: str) -> None:
        with pytest.raises(InvalidValues, match="cursor"):
            figures.page(connection, By.PROGRAM, MINE, cursor=cursor, limit=1)

    def test_names_and_holders(self, connection: Connection) -> None:
        one, other = ready_program(connection), uuid7()

        def queue(program_id: UUID, lane: int, holder: str | None, group: str = "", tenant: str = "default") -> None:
            values = {"tenant": tenant, "program_id": program_id, "lane": lane, "holder": holder, "group_key": group}
            connection.execute(insert(queues).values(**values, inserted_at=clock(connection)))

        queue(one, 0, "lm:*:gpt")
        queue(one, 2, f"program:*:{one}")
        queue(one, 2, "label:default:a=b", "g")
        queue(one, 1, "")
        queue(one, 1, None, "g")
        queue(other, 1, "")
        both = [Identity(one), Identity(other)]
        assert figures.names(connection, both) == {Identity(one): "answerer"}
        rows = [Figures(tenant="default", program_id=one), Figures(tenant="default", program_id=other)]
        held = ["label:default:a=b", "lm:*:gpt", f"program:*:{one}"]
        assert figures.holders(connection, By.PROGRAM, rows, MINE) == [held, []]
        high = Scope("default", lane=Lane.HIGH)
        assert figures.holders(connection, By.PROGRAM, rows, high) == [["lm:*:gpt"], []]
        queue(uuid7(), 2, "lm:*:slow", tenant="acme")
        lanes = [Figures(lane=lane) for lane in Lane]
        assert figures.holders(connection, By.LANE, lanes, MINE) == [held[1:2], [], [held[0], held[2]]]
        tenants = [Figures(tenant=tenant) for tenant in ("acme", "default", "nobody")]
        assert figures.holders(connection, By.TENANT, tenants, Scope(ALL)) == [["lm:*:slow"], held, []]
        assert figures.holders(connection, By.TENANT, [], MINE) == []
