"""Rejected messages."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

from sqlalchemy import Connection, Engine

from store import rejections
from store.rejections import Rejection
from tests.contract.store_rows import at_once, clock


class TestRejections:
    REJECTION = Rejection("dspex.commands", "malformed_message", "the body is not JSON", b"\x00\xff{'", 4, "id", "type")

    def test_is_kept_whole(self, connection: Connection) -> None:
        rejections.record(connection, self.REJECTION)
        [kept] = rejections.recent(connection)
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
        [kept] = rejections.recent(connection)
        assert kept.deliveries == 2

    def test_another_queue_body_or_size_is_another(self, connection: Connection) -> None:
        for rejection in (
            self.REJECTION,
            replace(self.REJECTION, queue="other"),
            replace(self.REJECTION, body=b""),
            replace(self.REJECTION, body_size=2_000_000),
        ):
            rejections.record(connection, rejection)
        assert [kept.deliveries for kept in rejections.recent(connection)] == [1] * 4

    def test_recent_are_the_newest_first(self, connection: Connection) -> None:
        for number in range(5):
            rejections.record(connection, replace(self.REJECTION, body=bytes([number])))
            before = clock(connection)
            while clock(connection) == before:
                pass
        assert [kept.body for kept in rejections.recent(connection, limit=3)] == [b"\x04", b"\x03", b"\x02"]

    def test_whatever_came_can_be_kept(self, connection: Connection) -> None:
        every_byte = bytes(range(256)) * 100
        hostile = Rejection("q", "invalid_message", "a\x00b \ud800", every_byte, 25_600, "\x00" * 10_000, "t\udfff")
        rejections.record(connection, hostile)
        rejections.record(connection, Rejection("q", "malformed_message", "", b"", 0))
        empty, kept = sorted(rejections.recent(connection), key=lambda item: item.body_size)
        assert kept.body == every_byte
        assert (kept.error_message, kept.message_id, kept.message_type) == ("a\ufffdb ?", "\ufffd" * 512, "t?")
        assert (empty.body, empty.message_id, empty.message_type) == (b"", None, None)

    def test_many_record_the_same_at_once(self, engine: Engine) -> None:
        def record() -> None:
            with engine.begin() as connection:
                rejections.record(connection, self.REJECTION)

        at_once([record] * 10)
        with engine.begin() as connection:
            [kept] = rejections.recent(connection)
        assert kept.deliveries == 10
