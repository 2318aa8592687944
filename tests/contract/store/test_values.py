"""Moments and JSON values: the same on both databases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from dspex import ExecutionOptions, Usage, uuid7
from store import counters, executions
from store.column_types import UtcDateTime, database_now
from store.executions import Claimed, Finish, Lease, Request, Running
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    EXPIRED,
    chosen,
    claim_now,
    clock,
    completed,
    get,
    ready_program,
    request,
    take,
    taken,
)


class TestTime:
    def test_is_the_clock_of_the_database_and_aware(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        before = clock(connection)
        take(connection, asked)
        executions.finish(connection, 0, [completed(asked, Claimed(asked.id, 1, 1, None))])
        after = clock(connection)
        kept = get(connection, asked.id)
        last = counters.totals(connection, asked.program_id).last_executed_at
        for moment in (kept.inserted_at, kept.started_at, kept.finished_at, last):
            assert moment is not None
            assert moment.tzinfo is UTC
            assert before <= moment <= after
        assert abs(datetime.now(UTC) - before) < timedelta(hours=1)

    @pytest.mark.parametrize("seconds", [-3600.0, -0.5, 0.0, 0.25, 1e-5, 30, 86_400.5])
    def test_offsets_are_right(self, connection: Connection, seconds: float) -> None:
        before = clock(connection)
        moment = connection.execute(select(database_now(seconds))).scalar_one()
        after = clock(connection)
        slack = timedelta(milliseconds=2)
        assert before + timedelta(seconds=seconds) - slack <= moment <= after + timedelta(seconds=seconds) + slack

    def test_goes_on_within_a_transaction(self, connection: Connection) -> None:
        first = clock(connection)
        while (later := clock(connection)) == first:
            pass
        assert later > first

    def test_a_moment_of_another_zone_is_the_same_moment(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        c = executions_table.c
        for text in ("2026-03-29T03:30:00.123456+05:45", "1999-12-31T23:59:59.999999-10:00", "2026-01-01T00:00:00Z"):
            moment = datetime.fromisoformat(text)
            connection.execute(update(executions_table).where(c.id == asked.id).values(started_at=moment))
            kept = get(connection, asked.id).started_at
            assert kept is not None
            assert kept == moment
            assert kept.tzinfo is UTC
            found = select(func.count()).where(
                c.started_at == moment, c.started_at < moment + timedelta(microseconds=1)
            )
            assert connection.execute(found).scalar_one() == 1

    def test_moments_sort_as_time_does(self, connection: Connection) -> None:
        moments = [database_now(seconds) for seconds in (-86_400, -1, -0.001, 0, 0.002, 1, 86_400)]
        found = connection.execute(select(*moments)).one()
        assert list(found) == sorted(found)
        assert UtcDateTime().cache_ok


VALUES: Mapping[str, Any] = {
    "unicode": "é 😀 \u2028 \ufeff \x01 \x7f \\ \"'",
    "looks like SQL": "'; DROP TABLE executions; --",
    "looks like a path": "$.inputs[0].\"a\"->>'b' %(x)s :name ? %s {} \\u0000",
    "looks like null": "null",
    "looks like a number": "0123",
    "looks like JSON": '{"a": [1]}',
    "empty text": "",
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "larger than 64 bits": 2**64 + 1,
    "very large": 10**60 + 7,
    "float": 0.1,
    "float that is whole": 3.0,
    "float with an exponent": 1e16,
    "float beyond integers": 1.5e300,
    "tiny": 5e-324,
    "negative zero": -0.0,
    "long": "x" * 100_000,
    "empty": {},
    "empty list": [],
    "keys": {"a.b": 1, 'c"d': 2, "e'f": 3, "": 4, "$": 5, "ü😀": 6, "null": None, "g[0]": 7, "h\\i": 8},
    "nested": {"a": [{"b": [[], [None, {"c": {}}]]}]},
    "deep": [[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]],
}


def exact(values: Any) -> Any:
    """Numbers by their value: 1e16 is 10000000000000000 in PostgreSQL, and reads back as an integer."""
    return json.loads(json.dumps(values), parse_int=Decimal, parse_float=Decimal)


class TestValues:
    def test_come_back_as_they_were(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id, value=value, nested=[{"value": value}]) for value in VALUES.values()]
        claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
        ends = [completed(item, claim, **item.inputs) for item, claim in zip(asked, claims, strict=True)]
        assert executions.finish(connection, 0, ends) == [True] * len(VALUES)
        for name, item in zip(VALUES, asked, strict=True):
            kept = get(connection, item.id)
            assert exact(kept.inputs) == exact(item.inputs), name
            assert exact(kept.outputs) == exact(item.inputs), name

    def test_as_names_of_fields(self, connection: Connection) -> None:
        values: dict[str, Any] = {str(value)[:1000]: number for number, value in enumerate(VALUES.values())}
        asked = request(ready_program(connection), **values)
        claimed = take(connection, asked)
        assert executions.finish(connection, 0, [completed(asked, claimed, **values)]) == [True]
        kept = get(connection, asked.id)
        assert kept.inputs == kept.outputs == values

    def test_a_rescued_request_is_still_the_same_request(self, connection: Connection) -> None:
        """It runs again as the database gives it back, and must not conflict with itself."""
        program_id = ready_program(connection)
        asked = {name: request(program_id, value=value, nested=[{"value": value}]) for name, value in VALUES.items()}
        claim_now(connection, Lease("alice", EXPIRED), list(asked.values()))
        assert len(executions.rescue(connection, len(VALUES))) == len(VALUES)
        again = {item.id: item for item in chosen(connection, BOB)}
        for name, item in asked.items():
            assert again[item.id].digest == item.digest, name
        claims = claim_now(connection, BOB, list(again.values()))
        assert {type(claim) for claim in claims} == {Running}
        assert claim_now(connection, BOB, list(asked.values())) == [Running(i.id) for i in asked.values()]

    def test_numbers_that_differ_are_other_requests(self) -> None:
        program_id, execution_id = uuid7(), uuid7()
        numbers = [0, 1, 2**53, 2**53 + 1, 2**64, 2**64 + 1, 0.5, "1", True, None, [1], {"1": 1}]
        digests = {request(program_id, execution_id, value=number).digest for number in numbers}
        assert len(digests) == len(numbers)

    def test_nothing_at_all(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = Request(uuid7(), program_id, {}, ExecutionOptions(), "/tests")
        claimed = take(connection, asked)
        ended = Finish(asked.id, program_id, claimed.lock_version, 0.0, Usage(), outputs={})
        assert executions.finish(connection, 0, [ended]) == [True]
        kept = get(connection, asked.id)
        assert (kept.inputs, kept.outputs, kept.error) == ({}, {}, None)
