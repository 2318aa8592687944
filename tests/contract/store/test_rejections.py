"""Rejected messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select

from dspex import uuid7
from dspex.contract.status import DeadLetterStatus
from dspex.errors import NotFound
from store import rejections
from store.rejections import RecordedRejection, Rejection
from store.tables import rejected_messages
from tests.contract.store.rows import at_once, clock


class TestRejections:
    REJECTION = Rejection("dspex.commands", "malformed_message", "the body is not JSON", b"\x00\xff{'", 4, "id", "type")

    def test_is_kept_whole(self, connection: Connection) -> None:
        rejections.record(connection, self.REJECTION)
        [kept] = rejections.page(connection).items
        assert (kept.id, kept.queue, kept.body, kept.body_size) == (
            self.REJECTION.id,
            "dspex.commands",
            b"\x00\xff{'",
            4,
        )
        assert (kept.error_code, kept.error_message) == ("malformed_message", "the body is not JSON")
        assert (kept.message_id, kept.message_type, kept.deliveries) == ("id", "type", 1)
        assert kept.inserted_at.tzinfo is UTC

    def test_the_same_body_again_is_counted(self, connection: Connection) -> None:
        for _ in range(2):
            rejections.record(connection, self.REJECTION)
        [kept] = rejections.page(connection).items
        assert kept.deliveries == 2

    def test_another_queue_body_or_size_is_another(self, connection: Connection) -> None:
        for rejection in (
            self.REJECTION,
            replace(self.REJECTION, queue="other"),
            replace(self.REJECTION, body=b""),
            replace(self.REJECTION, body_size=2_000_000),
        ):
            rejections.record(connection, rejection)
        assert [kept.deliveries for kept in rejections.page(connection).items] == [1] * 4

    def test_recent_are_the_newest_first(self, connection: Connection) -> None:
        for number in range(5):
            rejections.record(connection, replace(self.REJECTION, body=bytes([number])))
            before = clock(connection)
            while clock(connection) == before:
                pass
        assert [kept.body for kept in rejections.page(connection, limit=3).items] == [b"\x04", b"\x03", b"\x02"]

    def test_whatever_came_can_be_kept(self, connection: Connection) -> None:
        every_byte = bytes(range(256)) * 100
        hostile = Rejection("q", "invalid_message", "a\x00b \ud800", every_byte, 25_600, "\x00" * 10_000, "t\udfff")
        rejections.record(connection, hostile)
        rejections.record(connection, Rejection("q", "malformed_message", "", b"", 0))
        empty, kept = sorted(rejections.page(connection).items, key=lambda item: item.body_size)
        assert kept.body == every_byte
        assert (kept.error_message, kept.message_id, kept.message_type) == ("a\ufffdb ?", "\ufffd" * 512, "t?")
        assert (empty.body, empty.message_id, empty.message_type) == (b"", None, None)

    def test_many_record_the_same_at_once(self, engine: Engine) -> None:
        def record() -> None:
            with engine.begin() as connection:
                rejections.record(connection, self.REJECTION)

        at_once([record] * 10)
        with engine.begin() as connection:
            [kept] = rejections.page(connection).items
        assert kept.deliveries == 10


def keep(connection: Connection, body: bytes, **changes: Any) -> RecordedRejection:
    """A rejected message, as it is read."""
    rejection = replace(TestRejections.REJECTION, body=body, body_size=len(body), **changes)
    rejections.record(connection, rejection)
    return rejections.get(connection, rejection.id, tenant=rejection.tenant)


def tick(connection: Connection) -> datetime:
    """The next moment that the database can tell from this one."""
    before = clock(connection)
    while (now := clock(connection)) == before:
        pass
    return now


class TestDeadLetters:
    def test_one_is_read_by_its_id(self, connection: Connection) -> None:
        kept = keep(connection, b"a")
        assert (kept.status, kept.deliveries) == (DeadLetterStatus.DEAD, 1)
        with pytest.raises(NotFound, match="rejection_id: there is no rejected message"):
            rejections.get(connection, uuid7())
        with pytest.raises(NotFound):
            rejections.get(connection, kept.id, tenant="acme")

    def test_lists_are_filtered_and_come_in_pages_newest_first(self, connection: Connection) -> None:
        kept = list[RecordedRejection]()
        for number in range(12):
            code, queue = ("auth", "conflict")[number % 2], ("one", "two")[number // 6]
            kept.insert(0, keep(connection, bytes([number]), error_code=code, queue=queue))
            tick(connection)
        rejections.discard(connection, [kept[0].id, kept[1].id])
        rejections.replayed(connection, [kept[2]])
        since, until = kept[8].inserted_at, kept[4].inserted_at
        filters: list[tuple[dict[str, Any], Sequence[int]]] = [
            ({}, range(12)),
            ({"status": DeadLetterStatus.DEAD}, range(3, 12)),
            ({"status": DeadLetterStatus.DISCARDED}, (0, 1)),
            ({"status": DeadLetterStatus.REPLAYED}, (2,)),
            ({"error_code": "auth"}, range(1, 12, 2)),
            ({"queue": "one"}, range(6, 12)),
            ({"since": since, "until": until}, range(5, 9)),
            ({"queue": "two", "error_code": "conflict", "status": DeadLetterStatus.DEAD}, (4,)),
            ({"error_code": "other"}, ()),
        ]
        for given, chosen in filters:
            expected = [kept[index].id for index in chosen]
            assert walk(connection, given) == expected, given
            if given.get("status", DeadLetterStatus.DEAD) == DeadLetterStatus.DEAD:
                dead = [kept[index].id for index in chosen if index > 2]
                others = {name: value for name, value in given.items() if name != "status"}
                assert list(rejections.dead(connection, **others).items) == dead, given

    def test_it_is_replayed_or_discarded_once(self, connection: Connection) -> None:
        one, two, three = (keep(connection, body) for body in (b"1", b"2", b"3"))
        assert rejections.replayed(connection, [one]) == 1
        assert rejections.discard(connection, [one.id, two.id, uuid7()]) == 1
        assert rejections.discard(connection, [one.id, two.id]) == 0
        assert rejections.discard(connection, [three.id], tenant="acme") == 0
        assert rejections.replayed(connection, []) == 0
        assert statuses(connection) == {one.id: "replayed", two.id: "discarded", three.id: "dead"}
        assert list(rejections.dead(connection).items) == [three.id]
        read = rejections.get(connection, two.id)
        assert read == replace(two, status=DeadLetterStatus.DISCARDED, updated_at=read.updated_at)

    def test_one_that_is_rejected_again_is_dead_again_for_the_newest_reason(self, connection: Connection) -> None:
        replayed, discarded = keep(connection, b"1"), keep(connection, b"2")
        rejections.replayed(connection, [replayed])
        rejections.discard(connection, [discarded.id])
        for before in (replayed, discarded):
            again = keep(connection, before.body, error_code="conflict", error_message="taken\x00")
            assert (again.id, again.status, again.deliveries) == (before.id, DeadLetterStatus.DEAD, 2)
            assert (again.error_code, again.error_message) == ("conflict", "taken\ufffd")
            assert again.inserted_at == before.inserted_at

    def test_one_that_is_rejected_again_before_it_is_marked_stays_dead(self, connection: Connection) -> None:
        sent, other = keep(connection, b"1"), keep(connection, b"2")
        keep(connection, b"1")
        assert rejections.replayed(connection, [sent, other]) == 1
        assert statuses(connection) == {sent.id: "dead", other.id: "replayed"}

    def test_many_mark_the_same_at_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            kept = [keep(connection, bytes([number])) for number in range(20)]
        marked: list[int] = []

        def mark(number: int) -> None:
            with engine.begin() as connection:
                ids = [letter.id for letter in kept[:: (1, -1)[number % 2]]]
                marked.append(rejections.discard(connection, ids))

        at_once([lambda number=number: mark(number) for number in range(8)])  # type: ignore[misc]
        assert sorted(marked) == [0] * 7 + [20]


def walk(connection: Connection, given: Any) -> list[UUID]:
    """The ids of all pages."""
    cursor, ids = None, list[UUID]()
    while True:
        page = rejections.page(connection, **given, cursor=cursor, limit=4)
        ids += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


def statuses(connection: Connection) -> dict[UUID, str]:
    c = rejected_messages.c
    return {row.id: row.status for row in connection.execute(select(c.id, c.status))}
