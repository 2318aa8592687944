"""What goes wrong over and over is told once in a while."""

from __future__ import annotations

import pytest

from dspex.amqp.errors import Refused
from dspex.amqp.refusals import MOST, Refusals
from dspex.errors import NotDeclared, PublishDenied
from workers.telemetry.episodes import MAX_KINDS, Episodes


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
        "It fails: 500 times more in 61 s, the last: still",
    ]


def test_the_end_is_told_too_and_then_it_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    episodes = Episodes(lambda: now)
    episodes.tell("It fails", "execution 1")
    episodes.tell("It fails", "execution 2")
    episodes.go_on()
    now += 60
    episodes.go_on()
    now += 60
    episodes.go_on()
    episodes.tell("It fails", "execution 3")
    assert caplog.messages == [
        "It fails: execution 1",
        "It fails: 1 times more in 60 s, the last: execution 2",
        "It fails: execution 3",
    ]


def test_there_are_only_so_many_kinds(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    episodes = Episodes(lambda: now)
    for number in range(MAX_KINDS + 5):
        episodes.tell(f"Program {number} fails", "a")
    assert len(episodes._episodes) == MAX_KINDS + 1
    assert caplog.messages[MAX_KINDS - 1] == f"Program {MAX_KINDS - 1} fails: a"
    # However many there are: whoever makes programs would write the log else.
    assert caplog.messages[MAX_KINDS:] == [f"Other troubles: Program {MAX_KINDS} fails: a"]
    now += 60
    episodes.go_on()
    assert caplog.messages[-1] == f"Other troubles: 4 times more in 60 s, the last: Program {MAX_KINDS + 4} fails: a"


def test_a_traceback_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    episodes = Episodes(lambda: 1000.0)
    for number in range(5):
        episodes.tell("Executions fail unexpectedly", f"execution {number}", error=ValueError("no"))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


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
