"""While a server is away: pauses grow, chance spreads them, and the log is told what changes."""

from __future__ import annotations

import logging

import pytest

from workers.brokers.outage import FIRST_PAUSE, LAST_PAUSE, Outage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage("Queue q", clock=clock)


def pauses(outage: Outage, number: int) -> list[float]:
    return [outage.begin("refused") for _ in range(number)]


def test_pauses_grow_to_a_bound(outage: Outage) -> None:
    limits = [min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(number, 30)) for number in range(2000)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses(outage, 2000), limits, strict=True))
    assert limits[0] < 0.5
    assert limits[-1] == 10


def test_chance_spreads_them(clock: Clock) -> None:
    assert len({Outage("Queue q", clock=clock).begin("refused") for _ in range(20)}) > 10


def test_a_reason_is_told_once_in_an_outage(outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        outage.begin("reset")
        outage.begin("refused")
        clock.now += 1
    outage.end()
    outage.end()
    outage.begin("refused")
    assert caplog.messages == [
        "Queue q is away, trying again. reset",
        "Queue q is away, trying again. refused",
        "Queue q is back after 100.0 s.",
        "Queue q is away, trying again. refused",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "WARNING"]


def test_what_is_there_at_once_is_not_told(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.end()
    assert caplog.messages == []


def test_what_held_is_tried_again_at_once(outage: Outage, clock: Clock) -> None:
    pauses(outage, 10)
    outage.end()
    clock.now += LAST_PAUSE
    assert outage.begin("reset") <= FIRST_PAUSE


def test_what_breaks_as_soon_as_it_is_there_has_not_come_back(outage: Outage, clock: Clock) -> None:
    """A queue that is deleted over and over, or a login without rights, is no reason to spin."""
    pause = 0.0
    for _ in range(20):
        outage.end()
        clock.now += 0.1
        pause = outage.begin("cancelled")
    assert pause >= LAST_PAUSE / 2
