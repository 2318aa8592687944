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
