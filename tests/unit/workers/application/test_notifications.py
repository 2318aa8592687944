"""Telling that an execution has ended: in this process, and what happens without Redis."""

from __future__ import annotations

import logging
from uuid import UUID

import pytest

from deploy.processes import free_port
from dspex import uuid7
from tests.waiting import wait_until
from workers.application.notifications import MAX_GATHERED, Notifications


def test_who_listens_is_told_until_he_does_not() -> None:
    notifications, heard, first, second = Notifications(), list[UUID](), uuid7(), uuid7()
    notifications.listen(heard.append)
    notifications.ended(first)
    notifications.unlisten(heard.append)
    notifications.ended(second)
    notifications.close()
    assert heard == [first]


def test_without_redis_nothing_waits_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    notifications = Notifications(f"redis://:sesame@127.0.0.1:{free_port()}/0")
    with caplog.at_level(logging.WARNING):
        for _ in range(2 * MAX_GATHERED):
            notifications.ended(uuid7())
        wait_until(lambda: "Redis cannot be reached" in caplog.text, "it is logged")
    notifications.close()
    assert caplog.text.count("Redis cannot be reached") == 1
    assert "sesame" not in caplog.text


def test_a_message_has_so_many_ids_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Published:
        def __init__(self) -> None:
            self.messages: list[list[str]] = []

        def publish(self, _channel: str, message: str) -> None:
            self.messages.append(message.split())

    redis, ids = Published(), [uuid7() for _ in range(2_001)]
    monkeypatch.setattr("workers.application.notifications.connect", lambda _url: redis)
    notifications = Notifications("redis://127.0.0.1/0")
    notifications._gathered.extend(ids)
    notifications._publish()
    assert [len(message) for message in redis.messages] == [1_000, 1_000, 1]
    assert [id_ for message in redis.messages for id_ in message] == [str(id_) for id_ in ids]
