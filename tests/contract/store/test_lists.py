"""Lists: by filters, newest first, in pages that lose and repeat nothing."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, update

from dspex import Configuration, ErrorDetail, ExecutionStatus, ProgramStatus, SignatureStatus, uuid7
from dspex.errors import InvalidValues
from store import executions, programs, signatures
from store.database.pages import Page
from store.executions import Execution, Request
from store.executions.queries import MOST_COUNTED, MOST_SEARCHED
from store.programs import Program
from store.signatures import SignatureRow
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    SIGNATURE,
    accept,
    cancelled,
    clock,
    completed,
    failed,
    keep_signature,
    ready_program,
    request,
    take,
)


def tick(connection: Connection) -> datetime:
    """Wait for the next moment that the database can tell from this one."""
    now = clock(connection)
    while (later := clock(connection)) == now:
        pass
    return later


def walk(page_of: Callable[[str | None], Page[Any]]) -> list[Any]:
    """The ids of all pages."""
    cursor, ids = None, list[Any]()
    while True:
        page = page_of(cursor)
        ids += [item.id for item in page.items]
        if page.next_cursor is None:
            return ids
        assert page.items
        cursor = page.next_cursor


@dataclass(frozen=True)
class History:
    """Executions of two programs, in every status."""

    program_id: UUID
    other_id: UUID
    rows: Sequence[Execution]
    """The newest first."""
    middle: datetime

    def where(self, condition: Callable[[Execution], bool]) -> list[UUID]:
        return [item.id for item in self.rows if condition(item)]


def history(connection: Connection) -> History:
    ids = ready_program(connection), ready_program(connection)
    asked = list[Request]()
    middle = clock(connection)
    for number in range(36):
        if number == 18:
            middle = tick(connection)
        item = request(ids[number // 6 % 2])
        asked.append(item)
        if number % 6 == 0:
            accept(connection, item)
        else:
            claimed = take(connection, item)
            ends = {
                1: completed(item, claimed),
                2: failed(item, claimed),
                3: failed(item, claimed, ErrorDetail(code="auth", message="no")),
                4: cancelled(item, claimed),
            }
            if number % 6 in ends:
                executions.finish(connection, 0, [ends[number % 6]])
        if number % 3:  # some are of one moment on SQLite
            tick(connection)
    rows = executions.get(connection, [item.id for item in asked])
    ordered = sorted(rows, key=lambda item: (item.inserted_at, item.id), reverse=True)
    return History(*ids, ordered, middle)


class TestExecutions:
    @pytest.mark.parametrize("limit", [1, 5, 36, 50])
    def test_filters_and_pages(self, connection: Connection, limit: int) -> None:
        kept = history(connection)
        middle = kept.middle
        filters: list[tuple[dict[str, Any], Callable[[Execution], bool]]] = [
            ({}, lambda _: True),
            ({"program_id": kept.program_id}, lambda item: item.program_id == kept.program_id),
            ({"program_id": uuid7()}, lambda _: False),
            ({"since": middle}, lambda item: item.inserted_at >= middle),
            ({"until": middle}, lambda item: item.inserted_at < middle),
            ({"since": middle, "until": middle}, lambda _: False),
            ({"error_code": "auth"}, lambda item: item.error is not None and item.error.code == "auth"),
            ({"error_code": "other"}, lambda _: False),
            ({"error_code": "auth", "status": ExecutionStatus.COMPLETED}, lambda _: False),
            (
                {
                    "error_code": "timeout",
                    "program_id": kept.other_id,
                    "until": middle,
                    "status": ExecutionStatus.FAILED,
                },
                lambda item: (
                    item.program_id == kept.other_id
                    and item.inserted_at < middle
                    and item.error is not None
                    and item.error.code == "timeout"
                ),
            ),
        ]
        for given, condition in filters:
            self.check(connection, limit, given, kept.where(condition))

    @pytest.mark.parametrize("status", ExecutionStatus)
    def test_by_status(self, connection: Connection, status: ExecutionStatus) -> None:
        kept = history(connection)
        expected = kept.where(lambda item: item.status == status)
        assert expected
        self.check(connection, 4, {"status": status}, expected)
        mine = kept.where(lambda item: item.status == status and item.program_id == kept.other_id)
        self.check(connection, 2, {"status": status, "program_id": kept.other_id}, mine)

    def check(self, connection: Connection, limit: int, given: dict[str, Any], expected: list[UUID]) -> None:
        def page_of(cursor: str | None) -> Page[Execution]:
            return executions.page(connection, **given, cursor=cursor, limit=limit)

        assert walk(page_of) == expected, given

    def test_are_whole(self, connection: Connection) -> None:
        kept = history(connection)
        assert list(executions.page(connection).items) == kept.rows

    def test_are_counted_by_status(self, connection: Connection) -> None:
        kept = history(connection)
        oldest = kept.rows[-1].inserted_at
        each = {"pending": 6, "running": 6, "completed": 6, "failed": 12, "cancelled": 6}
        assert executions.count(connection) == (each, True, oldest)
        of_one = {"pending": 3, "running": 3, "completed": 3, "failed": 6, "cancelled": 3}
        assert executions.count(connection, kept.program_id).by_status == of_one
        assert executions.count(connection, since=kept.middle).by_status == of_one
        assert executions.count(connection, until=kept.middle) == (of_one, True, oldest)
        assert executions.count(connection, error_code="auth") == ({"failed": 6}, True, oldest)
        later = executions.count(connection, kept.other_id, error_code="timeout", since=kept.middle)
        assert later.by_status == {"failed": 2}
        assert executions.count(connection, error_code="other") == ({}, True, oldest)
        assert executions.count(connection, uuid7()) == ({}, True, None)

    def test_of_too_many_the_newest_are_counted(self, connection: Connection) -> None:
        kept = history(connection)
        seen = kept.rows[:6]
        counted = executions.count(connection, most=6)
        assert counted.by_status == Counter(item.status for item in seen)
        assert (counted.complete, counted.oldest) == (False, seen[-1].inserted_at)
        assert executions.count(connection, most=36).complete is False  # whether there are more is not looked at
        assert executions.count(connection, most=37).complete
        assert MOST_COUNTED == 100_000  # as the contract says

    def test_of_a_program_and_of_all(self, connection: Connection) -> None:
        kept = history(connection)
        mine = kept.where(lambda item: item.program_id == kept.program_id)
        first = executions.page(connection, program_id=kept.program_id, limit=10)
        assert [item.id for item in first.items] == mine[:10]
        rest = executions.page(connection, program_id=kept.program_id, cursor=first.next_cursor)
        assert [item.id for item in rest.items] == mine[10:]
        assert list(executions.page(connection).items) == kept.rows
        assert list(executions.page(connection, limit=7).items) == kept.rows[:7]

    def test_by_metadata(self, connection: Connection) -> None:
        """Every one is found, whatever its name; a page that has looked through enough ends, and the next goes on."""
        said = [{"order": "17", 'a"b': "'c'"}, {"order": "18"}, {}, {"order": "17", "käufer": "Ünal", "$": "x"}]
        program_id, other_id = ready_program(connection), ready_program(connection)
        rows = list[Request]()
        for number in range(16):
            rows.insert(0, replace(request((program_id, other_id)[number // 8]), metadata=said[number % 4]))
            take(connection, rows[0])
            tick(connection)

        def found(limit: int = 50, most: int = 20_000, **given: Any) -> list[list[UUID]]:
            pages, cursor = list[list[UUID]](), None
            while True:
                page = executions.page(connection, **given, cursor=cursor, limit=limit, most=most)
                pages.append([item.id for item in page.items])
                if (cursor := page.next_cursor) is None:
                    return pages

        def ids(*numbers: int) -> list[UUID]:
            return [rows[number].id for number in numbers]

        assert found(metadata={"order": "17"}) == [ids(0, 3, 4, 7, 8, 11, 12, 15)]
        assert found(metadata={"order": "17", "käufer": "Ünal"}) == [ids(0, 4, 8, 12)]
        assert found(metadata={'a"b': "'c'"}, program_id=other_id) == [ids(3, 7)]
        assert found(metadata={"$": "x"}, status=ExecutionStatus.RUNNING) == [ids(0, 4, 8, 12)]
        assert found(metadata={"$": "x"}, status=ExecutionStatus.FAILED) == [[]]
        for nothing in ({"order": "1"}, {"order": "17%"}, {"$.order": "17"}, {"order": "17", "käufer": ""}, {"x": ""}):
            assert found(metadata=nothing) == [[]]
        assert found(metadata={"order": "17"}, limit=3) == [ids(0, 3, 4), ids(7, 8, 11), ids(12, 15)]
        assert found(metadata={"order": "18"}, most=3) == [ids(2), [], ids(6), ids(10), ids(14), []]
        assert found(metadata={"order": "17"}, limit=1, most=5) == [[one] for one in ids(0, 3, 4, 7, 8, 11, 12, 15)]
        assert found(metadata={"x": "y"}, program_id=program_id, most=4) == [[], [], []]
        assert MOST_SEARCHED == 20_000  # as the contract says

    def test_by_metadata_they_are_counted(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        for number in range(6):
            asked = replace(request(program_id), metadata={"batch": str(number % 2)})
            claimed = take(connection, asked)
            if number < 3:
                executions.finish(connection, 0, [failed(asked, claimed)])
        assert executions.count(connection, metadata={"batch": "1"}).by_status == {"failed": 1, "running": 2}
        assert executions.count(connection, error_code="timeout", metadata={"batch": "0"}).by_status == {"failed": 2}
        assert executions.count(connection, metadata={"batch": "2"})[:2] == ({}, True)
        for never_stored in ("\x00", "\ud800"):
            assert executions.page(connection, metadata={"batch": never_stored}).items == ()
            assert executions.count(connection, metadata={never_stored: "1"}).by_status == {}

    def test_what_comes_between_two_pages_moves_nothing(self, connection: Connection) -> None:
        kept = history(connection)
        first = executions.page(connection, limit=10)
        tick(connection)
        take(connection, request(kept.program_id))
        rest = executions.page(connection, cursor=first.next_cursor)
        assert [item.id for item in (*first.items, *rest.items)] == kept.where(lambda _: True)

    def test_of_one_moment_are_told_apart_by_id(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        ids = [take(connection, request(program_id)).id for _ in range(9)]
        connection.execute(update(executions_table).values(inserted_at=clock(connection)))
        found = walk(lambda cursor: executions.page(connection, cursor=cursor, limit=2))
        assert found == sorted(ids, reverse=True)

    @pytest.mark.parametrize(
        "cursor",
        [
            "",
            "x",
            "ü",
            "////",
            "a" * 1000,
            *(
                base64.urlsafe_b64encode(text).decode()
                for text in (
                    b"\xff\xff",
                    b"2026-01-01T00:00:00+00:00",
                    b"2026-01-01T00:00:00 0190a0e07c1170008000000000000000",
                    b"0001-01-01T00:00:00+23:00 0190a0e07c1170008000000000000000",
                    b"2026-01-01T00:00:00+00:00 x",
                )
            ),
        ],
    )
    def test_a_wrong_cursor(self, connection: Connection, cursor: str) -> None:
        with pytest.raises(InvalidValues, match="cursor: is not one"):
            executions.page(connection, cursor=cursor)

    @pytest.mark.parametrize("limit", [-1, 0, 1001])
    def test_a_wrong_limit(self, connection: Connection, limit: int) -> None:
        with pytest.raises(InvalidValues, match="limit: must be between 1 and 1000"):
            executions.page(connection, limit=limit)


class TestOthers:
    def test_signatures(self, connection: Connection) -> None:
        rows = list[SignatureRow]()
        for number in range(12):
            signature = SIGNATURE.model_copy(
                update={"name": f"name {number % 2}", "module": f"m{number % 3}", "version": f"1.0.{number}"}
            )
            row = signatures.create(connection, uuid7(), signature, activate=number % 4 > 0)
            rows.insert(0, signatures.deprecate(connection, row.id) if number % 4 == 3 else row)
            tick(connection)
        for given, condition in (
            ({}, lambda _: True),
            ({"name": "name 1"}, lambda row: row.signature.name == "name 1"),
            ({"module": "m2"}, lambda row: row.signature.module == "m2"),
            ({"status": SignatureStatus.DRAFT}, lambda row: row.status == SignatureStatus.DRAFT),
            (
                {"name": "name 1", "module": "m1", "status": SignatureStatus.ACTIVE},
                lambda row: (row.signature.name, row.signature.module, row.status) == ("name 1", "m1", "active"),
            ),
        ):
            expected = [row.id for row in rows if condition(row)]
            assert expected

            def page_of(cursor: str | None, given: Any = given) -> Page[SignatureRow]:
                return signatures.page(connection, **given, cursor=cursor, limit=2)

            assert walk(page_of) == expected
        assert list(signatures.page(connection).items) == rows

    def test_programs(self, connection: Connection) -> None:
        signature_id, rows = keep_signature(connection), list[Program]()
        for number in range(12):
            row = programs.create(
                connection,
                uuid7(),
                name=f"name {number % 2}",
                signature_id=signature_id if number % 3 else keep_signature(connection),
                adapter_type="mock",
                configuration=Configuration(),
            )
            rows.insert(0, programs.archive(connection, row.id) if number % 4 == 3 else row)
            tick(connection)
        for given, condition in (
            ({}, lambda _: True),
            ({"name": "name 1"}, lambda row: row.name == "name 1"),
            ({"signature_id": signature_id}, lambda row: row.signature_id == signature_id),
            ({"status": ProgramStatus.ARCHIVED}, lambda row: row.status == ProgramStatus.ARCHIVED),
            (
                {"name": "name 1", "signature_id": signature_id, "status": ProgramStatus.ARCHIVED},
                lambda row: (row.name, row.signature_id, row.status) == ("name 1", signature_id, "archived"),
            ),
        ):
            expected = [row.id for row in rows if condition(row)]
            assert expected

            def page_of(cursor: str | None, given: Any = given) -> Page[Program]:
                return programs.page(connection, **given, cursor=cursor, limit=2)

            assert walk(page_of) == expected
        assert list(programs.page(connection).items) == rows
