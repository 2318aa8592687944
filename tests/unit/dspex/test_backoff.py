"""Pauses grow, chance spreads them, and they begin anew after what held."""

from __future__ import annotations

from dspex.backoff import Backoff, doubled, spread


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_to_the_last() -> None:
    backoff = Backoff(0.1, 5.0)
    pauses = [backoff.failed() for _ in range(2000)]
    assert 0.05 <= pauses[0] <= 0.1
    assert 0.4 <= pauses[3] <= 0.8
    assert all(2.5 <= pause <= 5 for pause in pauses[6:])
    assert backoff.failures == 2000


def test_what_breaks_at_once_has_not_come_back_and_what_holds_has() -> None:
    clock, pause = Clock(), 0.0
    backoff = Backoff(0.1, 5.0, clock=clock)
    for _ in range(20):
        backoff.succeeded()
        clock.now += 4.9
        pause = backoff.failed()
    assert pause >= 2.5
    backoff.succeeded()
    clock.now += 3
    backoff.succeeded()  # still there
    clock.now += 2
    assert backoff.failed() <= 0.1


def test_pauses_double_up_to_the_last() -> None:
    for failures, most in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30]):
        drawn = [spread(doubled(0.5, 30.0, failures)) for _ in range(200)]
        assert most / 2 <= min(drawn) < max(drawn) <= most
    assert 15 <= spread(doubled(0.5, 30.0, 10**6)) <= 30
