"""Writes are gathered where many long executions are in flight, and nowhere else."""

from __future__ import annotations

import pytest

from workers.application.pace import Pace


def after(*seconds: float) -> Pace:
    pace = Pace()
    for each in seconds:
        pace.ended(each)
    return pace


@pytest.mark.parametrize(
    ("seconds", "in_flight", "allowed"),
    [
        (0.001, 1000, 0.0),
        (0.2, 1000, 0.0),
        (1.0, 1000, 0.004),
        (5.0, 1000, 0.02),
        (60.0, 1000, 0.025),
        (5.0, 127, 0.0),
        (5.0, 128, 0.02),
        (5.0, 1, 0.0),
    ],
)
def test_what_may_be_late_is_a_small_part_of_what_executions_take(
    seconds: float, in_flight: int, allowed: float
) -> None:
    assert after(*[seconds] * 500).allows(in_flight) == pytest.approx(allowed)


def test_nothing_waits_before_anything_has_ended() -> None:
    assert Pace().allows(1000) == 0.0


def test_a_long_execution_among_short_ones_delays_little() -> None:
    assert after(*[0.01] * 100, 5.0, *[0.01] * 20).allows(1000) == 0.0
