"""Processes that die are replaced, later and later; where none lives any more, the supervisor ends."""

from __future__ import annotations

import logging
import re
import subprocess
import threading
import time

import pytest

from tests.waiting import wait_until
from workers.process import supervisor
from workers.process.supervisor import Child, Children
from workers.settings import Settings

ENDS_AT_ONCE = Child(("there-is-no-such-command",))
"""Ends with 2: a wrong setting would do the same."""
REPLACED = re.compile(r"(\S+) process \d+ ended with 2: it is replaced in (\d+) s\.")


def pauses(caplog: pytest.LogCaptureFixture) -> list[float]:
    """What was told: the seconds before each replacement."""
    found = [REPLACED.fullmatch(record.getMessage()) for record in caplog.records]
    return [float(match[2]) for match in found if match is not None]


def replace_until_hopeless(children: Children) -> None:
    def hopeless() -> bool:
        children.replace_dead()
        return children.hopeless

    wait_until(hopeless, "all have died again and again")


def test_the_pauses_grow_and_it_ends_where_none_lives(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 1.0)
    started = list[Child]()
    start = supervisor._start

    def counted(child: Child) -> subprocess.Popen[bytes]:
        started.append(child)
        return start(child)

    monkeypatch.setattr(supervisor, "_start", counted)
    monkeypatch.setattr(supervisor, "time", Hastened())
    replace_until_hopeless(Children([ENDS_AT_ONCE]))
    assert pauses(caplog) == [1, 2, 4, 8, 16]
    assert len(started) == 5


class Hastened:
    """Time that goes by twenty times as fast."""

    @staticmethod
    def monotonic() -> float:
        return 20 * time.monotonic()


def test_a_pause_has_an_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 50.0)
    monkeypatch.setattr(supervisor, "time", Hastened())
    children = Children([ENDS_AT_ONCE])

    def three_times() -> bool:
        children.replace_dead()
        return len(pauses(caplog)) == 2

    wait_until(three_times, "it has died twice")
    assert pauses(caplog) == [50, 60]


def test_one_that_lived_long_begins_anew(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It worked: whatever ended it has not to do with its start."""
    monkeypatch.setattr(supervisor, "SOON_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    children = Children([ENDS_AT_ONCE])

    def often() -> bool:
        children.replace_dead()
        return len(pauses(caplog)) == 6

    wait_until(often, "it has died six times")
    assert not children.hopeless


def test_one_that_lives_is_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    living, start = Child(("lives",)), supervisor._start
    monkeypatch.setattr(
        supervisor,
        "_start",
        lambda child: subprocess.Popen(["sleep", "120"]) if child is living else start(child),
    )
    children = Children([ENDS_AT_ONCE, living])
    dying, lasting = children._places
    try:

        def failed() -> bool:
            children.replace_dead()
            return dying.failures > supervisor.GIVE_UP

        wait_until(failed, "one has died again and again")
        assert lasting.failures == 0
        assert not children.hopeless
    finally:
        lasting.process.kill()
        lasting.process.wait()


def test_the_supervisor_ends_with_an_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "_workers", lambda _settings: [ENDS_AT_ONCE, ENDS_AT_ONCE])
    monkeypatch.setattr(supervisor, "deliverer", lambda _settings: [])
    assert supervisor.supervise(Settings(), threading.Event()) == 1
    assert [r.levelno for r in caplog.records if "giving up" in r.getMessage()] == [logging.CRITICAL]


def test_what_is_dead_already_drained_nothing_badly() -> None:
    """It was told of when it died."""
    children = Children([ENDS_AT_ONCE])
    (place,) = children._places
    place.process.wait(60)
    children.replace_dead()
    children.terminate()
    assert children.wait(1) == 0
