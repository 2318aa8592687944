"""Denials leave a line each, until there are too many of a kind: then they are counted."""

from __future__ import annotations

import logging

import pytest

from workers.security.audit import LINES, MAX_KINDS, Audit, Denial

STRANGER = Denial("dspex.program.execute.v1", "stranger", "default", "the login is not known")


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dspex.audit")


def test_a_denial_is_a_line_with_who_what_and_why(caplog: pytest.LogCaptureFixture) -> None:
    Audit().denied(STRANGER, "0190")
    assert caplog.messages == [
        "denied: dspex.program.execute.v1 by stranger of tenant default (the login is not known) on 0190"
    ]


def test_a_flood_is_a_few_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    audit = Audit(clock)
    for _ in range(5_000):
        audit.denied(STRANGER)
    audit.denied(STRANGER._replace(login="other"))
    assert len(caplog.messages) == LINES + 1
    clock.now = 60.0
    audit.end_episodes()
    [count] = caplog.messages[LINES + 1 :]
    assert count.startswith("denied: dspex.program.execute.v1 by stranger of tenant default (the login is not known), ")
    assert count.endswith(", 4990 times more in 60 s")
    audit.denied(STRANGER)
    assert len(caplog.messages) == LINES + 3


def test_however_many_kinds_there_are_the_lines_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(Clock())
    for number in range(MAX_KINDS + 500):
        audit.denied(STRANGER._replace(login=f"login-{number}"))
    assert len(caplog.messages) == MAX_KINDS + LINES
