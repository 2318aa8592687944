"""How many executions a gate lets begin: limits, buckets, closures, and the number that adapts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from store.gates.rooms import EXHAUSTED, FAILED, LIMITED, OK, Levels, Settled

LM = Levels("lm")


def test_without_a_limit_all() -> None:
    assert LM.room() == math.inf
    assert not LM.is_counted


def test_a_pause_lets_nothing_begin() -> None:
    assert replace(LM, paused=True, in_flight=5).room() == 0


@pytest.mark.parametrize(("held", "room"), [(0, 10), (9, 1), (10, 0), (13, 0)])
def test_in_flight(held: int, room: int) -> None:
    assert replace(LM, in_flight=10, held=held).room() == room


class TestBuckets:
    def test_requests_flow_in_and_at_most_three_seconds_gather(self) -> None:
        new = replace(LM, requests_per_minute=600).filled(None)
        assert (new.requests_left, new.room()) == (31, 31)
        empty = new.taken(31)
        assert empty.room() == 0
        assert empty.filled(1.0).room() == 10
        assert empty.filled(3600.0).room() == 31

    def test_a_small_limit_loses_nothing_between_two_looks(self) -> None:
        """One in six seconds, looked at every 0.7 s: ten in a minute, and one at its begin."""
        levels, begun = replace(LM, requests_per_minute=10).filled(None), 0
        for _ in range(round(60 / 0.7)):
            number = int(levels.room())
            begun += number
            levels = levels.taken(number).filled(0.7)
        assert begun == 11

    def test_tokens_are_reserved_by_what_others_used(self) -> None:
        levels = replace(LM, tokens_per_minute=60_000, tokens_each=500.0).filled(None)
        assert (levels.tokens_left, levels.room()) == (3500, 7)
        assert levels.taken(7).room() == 0

    def test_what_was_reserved_too_much_comes_back(self) -> None:
        levels = replace(LM, tokens_per_minute=60_000, tokens_each=500.0, tokens_left=0.0)
        after = levels.settled(Settled(500.0, OK, 1, 100))
        assert (after.tokens_left, after.tokens_each) == (400.0, 460.0)

    def test_what_was_reserved_too_little_is_paid_later(self) -> None:
        levels = replace(LM, tokens_per_minute=60_000, tokens_each=500.0, tokens_left=100.0)
        after = levels.settled(Settled(500.0, OK, 1, 2500))
        assert after.tokens_left == -1900.0
        assert after.filled(1.0).room() == 0
        assert after.filled(3.0).room() == 1

    def test_of_what_was_lost_the_estimate_counts(self) -> None:
        levels = replace(LM, tokens_per_minute=60_000, tokens_left=100.0)
        assert levels.settled(Settled(500.0)).tokens_left == 100.0

    def test_of_an_lm_its_calls_count(self) -> None:
        levels = replace(LM, requests_per_minute=60, requests_left=2.0)
        assert levels.settled(Settled(0.0, OK, 4, 10)).requests_left == -1.0
        assert replace(levels, kind="tenant").settled(Settled(0.0, OK, 4, 10)).requests_left == 2.0

    def test_a_minute_has_its_tokens_whatever_is_estimated(self) -> None:
        """Runs of 2 s use 50 to 1,950 tokens, the estimate begins at 1,000: ten minutes are within 5 %."""
        levels, running, spent, now = (
            replace(LM, tokens_per_minute=120_000).filled(None),
            list[tuple[float, float]](),
            0,
            0.0,
        )
        sizes = [50 + (number * 377) % 1900 for number in range(10_000)]
        while now < 600:
            for end, reserved in [one for one in running if one[0] <= now]:
                running.remove((end, reserved))
                used = sizes.pop()
                spent += used
                levels = levels.settled(Settled(reserved, OK, 1, used))
            number = int(levels.room())
            running += [(now + 2.0, levels.estimate)] * number
            levels = levels.taken(number).filled(0.1)
            now += 0.1
        assert spent / 10 == pytest.approx(120_000, rel=0.05)


class TestClosures:
    def test_nothing_while_it_is_closed_and_one_afterwards(self) -> None:
        assert replace(LM, closed_for=3.0).room() == 0
        over = replace(LM, closed_for=-0.1)
        assert over.room() == 1
        assert over.taken(1, probe=True).room() == 0

    def test_what_falls_back_does_not_wait(self) -> None:
        assert replace(LM, closed_for=3.0).room(falls_back=True) == math.inf
        assert replace(LM, closed_for=3.0, in_flight=4, held=3).room(falls_back=True) == 1

    @pytest.mark.parametrize("outcome", [OK, FAILED])
    def test_a_probe_that_was_answered_opens(self, outcome: str) -> None:
        after = replace(LM, closed_for=-1.0, closures=3).settled(Settled(outcome=outcome, calls=1, probe=True))
        assert (after.closed_for, after.closures, after.room()) == (None, 0, math.inf)

    @pytest.mark.parametrize(
        "slot",
        [
            Settled(outcome=LIMITED, calls=1, probe=True),
            Settled(outcome=None, probe=True),
            Settled(outcome=FAILED, calls=0, probe=True),
            Settled(outcome=EXHAUSTED, calls=1, probe=True),
            Settled(outcome=OK, calls=1),
        ],
    )
    def test_nothing_else_does(self, slot: Settled) -> None:
        """One that is told to wait, is lost, made no call, was the last one let through, or began before it closed."""
        assert replace(LM, closed_for=-1.0).settled(slot).room() == 1


class TestAdapts:
    def test_up_while_it_goes_well(self) -> None:
        levels = replace(LM, in_flight=20, least_in_flight=2, allowed=4.0)
        for _ in range(4):
            levels = levels.settled(Settled(outcome=OK, calls=1))
        assert levels.most == 4
        for _ in range(200):
            levels = levels.settled(Settled(outcome=OK, calls=1))
        assert levels.most == 20

    def test_down_once_for_each_episode(self) -> None:
        levels = replace(LM, in_flight=20, least_in_flight=2)
        for _ in range(15):  # all of them had begun before the first one was told
            levels = levels.settled(Settled(outcome=LIMITED, calls=1, age=5.0))
        assert levels.most == 14
        later = replace(levels, since_shrunk=30.0)
        assert later.settled(Settled(outcome=LIMITED, calls=1, age=31.0)).most == 14
        assert later.settled(Settled(outcome=LIMITED, calls=1, age=5.0)).most == 9

    def test_never_below_the_least(self) -> None:
        levels = replace(LM, in_flight=20, least_in_flight=15)
        assert levels.settled(Settled(outcome=LIMITED, calls=1)).most == 15

    def test_never_for_other_errors(self) -> None:
        levels = replace(LM, in_flight=20, least_in_flight=2, allowed=10.0)
        assert levels.settled(Settled(outcome=FAILED, calls=1)).most == 10
        assert levels.settled(Settled()).most == 10

    def test_without_a_least_the_limit_is_the_limit(self) -> None:
        assert replace(LM, in_flight=20).settled(Settled(outcome=LIMITED, calls=1)).most == 20
