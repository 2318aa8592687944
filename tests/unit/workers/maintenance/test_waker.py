"""A process is woken when something of its own is due; where the database says what waits, it listens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy.processes import wait_until
from dspex.errors import DatabaseUnavailable
from tests.unit.system import PATIENCE
from workers.application.wiring import Application
from workers.maintenance import waker as module
from workers.maintenance.waker import SOON_SECONDS, Waker
from workers.telemetry.episodes import Episodes


class Heard:
    """A session that has heard something as soon as its pipe can be read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.lost = self.closed = False

    def fileno(self) -> int:
        return self.reading

    def say(self) -> None:
        os.write(self.writing, b"!")

    def heard(self) -> bool:
        os.read(self.reading, 100)
        if self.lost:
            raise DatabaseUnavailable("it is gone")
        return True

    def close(self) -> None:
        self.closed = True
        os.close(self.reading)
        os.close(self.writing)


class Woken:
    """A waker, and the looks that it has asked for."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.waker = Waker(
            cast("Application", SimpleNamespace(engine=None, episodes=Episodes())),
            lambda *, wake=False: self.looks.append(wake),
        )


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Heard | None]:
    """The sessions that are given to who listens, first to last; None: the database says nothing."""
    given: list[Heard | None] = []

    def listen(_engine: Any) -> Any:
        if not given:
            raise DatabaseUnavailable("it is away")
        return given.pop(0)

    monkeypatch.setattr(module, "listen", listen)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    return given


@pytest.fixture
def woken(sessions: list[Heard | None]) -> Iterator[Woken]:
    woken = Woken()
    yield woken
    woken.waker.stop()
    assert not woken.waker.thread.is_alive()


def test_it_wakes_for_what_is_due(sessions: list[Heard | None], woken: Woken) -> None:
    sessions.append(None)
    woken.waker.start()
    began = time.monotonic()
    for seconds in (0.2, 0.05, 0.05, SOON_SECONDS * 2):
        woken.waker.later(seconds)
    assert wait_until(lambda: len(woken.looks) >= 2, PATIENCE)
    assert time.monotonic() - began >= 0.2
    assert woken.looks == [True, True]  # one for each moment, and none for what is far
    assert woken.waker._moments == []


def test_it_looks_when_the_database_says_so_and_after_it_was_lost(
    sessions: list[Heard | None], woken: Woken, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Heard(), Heard()
    sessions.append(first)
    woken.waker.start()
    assert wait_until(lambda: woken.looks == [True], PATIENCE)  # for what was offered before
    first.say()
    assert wait_until(lambda: woken.looks == [True, False], PATIENCE)
    first.lost = True
    first.say()
    assert wait_until(lambda: first.closed, PATIENCE)
    sessions.append(second)
    assert wait_until(lambda: woken.looks == [True, False, True], PATIENCE)
    assert caplog.text.count("The database does not say what waits") == 1
    woken.waker.stop()
    assert second.closed


def test_it_stops_while_it_waits(sessions: list[Heard | None], woken: Woken) -> None:
    sessions.append(None)
    woken.waker.start()
    waiting = threading.Event()
    woken.waker.later(SOON_SECONDS / 2)
    waiting.set()
    woken.waker.stop()
    assert woken.looks == []
