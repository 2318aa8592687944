"""What goes wrong over and over is told once in a while."""

from __future__ import annotations

import pytest

from dspex.amqp_errors import Refused
from dspex.errors import NotDeclared, PublishDenied
from dspex.refusals import MOST, Refusals
from workers.episodes import Episodes


def test_one_line_a_minute_of_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    episodes = Episodes(lambda: now)
    for _ in range(500):
        episodes.tell("It fails", "no reason")
    episodes.tell("Another thing fails", "for another")
    now += 61
    episodes.tell("It fails", "still")
    assert caplog.messages == [
        "It fails: no reason",
        "Another thing fails: for another",
        "It fails: still (499 more since the last line)",
    ]


def test_what_is_refused_over_and_over_is_not_sent_for_a_while() -> None:
    refusals, events = Refusals(), Refused("dspex.events")
    for at in (0.0, 0.1):
        refusals.note(events, NotDeclared, "gone", at)
        assert not refusals
    refusals.note(events, NotDeclared, "gone", 0.2)
    assert refusals.find("dspex.events", "a.key", 1.1) == (NotDeclared, "gone")
    assert refusals.find("dspex.commands", "a.key", 1.1) is None
    assert refusals.find("dspex.events", "a.key", 1.3) is None
    assert not refusals


def test_a_refusal_now_and_then_is_each_time_the_brokers() -> None:
    refusals = Refusals()
    for number in range(20):
        refusals.note(Refused("", None), PublishDenied, "denied", number * 1.0)
        assert not refusals


def test_of_some_only_one_key_is_refused_and_few_are_remembered() -> None:
    refusals = Refusals()
    for number in range(3 * MOST):
        for at in (0.0, 0.1, 0.2):
            refusals.note(Refused("x", f"key-{number}"), PublishDenied, "denied", at)
    assert refusals.find("x", f"key-{3 * MOST - 1}", 0.3) == (PublishDenied, "denied")
    assert refusals.find("x", "another", 0.3) is None
    assert len(refusals._until) <= MOST
    assert len(refusals._times) <= MOST
