"""The checker of the run of all faults: it finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import pytest

from tests.faults.aftermath import Remains, Row, wrong
from tests.faults.load import Asked, Key, Ledger

KEY = Key("acme", UUID(int=1))
TWIN = Key("other", UUID(int=1))
PROGRAM = UUID(int=7)


def timeline(story: str) -> list[dict[str, Any]]:
    """`running 1, completed 1`."""
    return [{"status": status, "attempt": int(n)} for status, n in (entry.split() for entry in story.split(", "))]


def row(story: str = "running 1, completed 1", *, code: str | None = None, delivered: int = 0) -> Row:
    entries = timeline(story)
    last = [entry["status"] for entry in entries if entry["status"] != "discarded"][-1]
    return Row(last, PROGRAM, len(entries), code, entries, delivered)


def world(story: str = "running 1, completed 1", *, code: str | None = None, calls: int = 1) -> tuple[Ledger, Remains]:
    """One execution, of which all is well, where the story is."""
    there = row(story, code=code)
    said = f'{{"type": "dspex.execution.{there.status}.v1"}}'
    return Ledger({KEY: Asked(PROGRAM, confirmed=True)}), Remains(
        rows={KEY: there},
        heard={KEY: {f"{KEY.id}.{there.lock_version}": {said}}},
        calls={KEY: calls},
        counters={(KEY.tenant, PROGRAM, there.status): 1},
    )


def found(ledger: Ledger, remains: Remains, **other: Any) -> list[str]:
    """The kinds of what is wrong."""
    return [line.partition(":")[0] for line in wrong(ledger, dataclasses.replace(remains, **other))]


def test_nothing_is_wrong() -> None:
    assert found(*world()) == []


@pytest.mark.parametrize(
    ("story", "code", "calls", "expected"),
    [
        ("pending 0, running 1, completed 1", None, 1, []),
        ("running 1, pending 1, running 2, completed 2", None, 2, []),
        ("running 1, pending 0, running 1, completed 1", None, 2, []),  # given back
        ("running 1, completed 1", None, 2, ["overrun"]),
        ("running 1, completed 1, completed 1", None, 1, ["double"]),
        ("running 1, running 2", None, 2, ["lost"]),
        ("running 1, cancelled 1", None, 1, ["end"]),  # nobody has asked for that
        ("running 1, failed 1", "internal", 1, ["end"]),
        ("running 1, running 2, failed 2", "attempts_exhausted", 2, ["end"]),
        ("running 1, running 2, running 3, failed 3", "attempts_exhausted", 3, []),
        ("running 1, running 2, running 3, running 4, completed 4", None, 4, ["overrun"]),
        ("running 1, failed 1, discarded 1, pending 0, running 1, completed 1", None, 2, []),  # replayed
    ],
)
def test_a_timeline(story: str, code: str | None, calls: int, expected: list[str]) -> None:
    ledger, remains = world(story, code=code, calls=calls)
    counters = {} if "lost" in expected else remains.counters
    assert found(ledger, remains, counters=counters) == expected


def test_what_was_confirmed_has_a_row() -> None:
    ledger, _ = world()
    assert found(ledger, Remains()) == ["lost"]
    ledger.asked[KEY].confirmed = False
    assert found(ledger, Remains()) == []


def test_a_row_of_another_tenant_is_none_of_this_one() -> None:
    ledger, remains = world()
    moved = {TWIN: remains.rows[KEY]}
    said = {TWIN: remains.heard[KEY]}
    assert sorted(found(ledger, remains, rows=moved, heard=said)) == ["double", "double", "double", "lost"]


def test_a_key_has_one_row() -> None:
    ledger, remains = world()
    second = Key(KEY.tenant, UUID(int=2))
    ledger.asked |= {KEY: Asked(PROGRAM, key="k", confirmed=True), second: Asked(PROGRAM, key="k", confirmed=True)}
    assert found(ledger, remains) == []
    assert "lost" in found(ledger, Remains())
    both = {KEY: row(), second: row()}
    assert "lost" in found(ledger, remains, rows=both)


def test_counters_are_the_rows_of_each_tenant() -> None:
    ledger, remains = world()
    assert found(ledger, remains, counters={}) == ["double"]
    assert found(ledger, remains, counters={("other", PROGRAM, "completed"): 1}) == ["double", "double"]


def test_what_is_told() -> None:
    ledger, remains = world()
    event, said = next(iter(remains.heard[KEY].items()))
    assert found(ledger, remains, heard={}) == ["untold"]
    assert found(ledger, remains, heard={KEY: {f"{KEY.id}.99": said}}) == ["untold"]
    assert found(ledger, remains, heard={KEY: {event: said, f"{KEY.id}.1": said}}) == ["double"]
    assert found(ledger, remains, heard={KEY: {event: {*said, "other"}}}) == ["double"]
    assert found(ledger, remains, heard={**remains.heard, TWIN: {event: said}}) == ["double"]


@pytest.mark.parametrize(("delivered", "expected"), [(0, ["untold"]), (1, []), (2, ["double"])])
def test_webhooks(delivered: int, expected: list[str]) -> None:
    ledger, remains = world()
    ledger.asked[KEY].webhook = True
    assert found(ledger, remains, rows={KEY: row(delivered=delivered)}) == expected


def test_letters() -> None:
    ledger, remains = world()
    place = ("acme", "digest")
    ledger.refused[place] = ("conflict", True)
    assert found(ledger, remains) == ["lost"]
    assert found(ledger, remains, rejected={place: ("conflict", "x")}) == []
    assert found(ledger, remains, rejected={place: ("internal", "x")}) == ["dead letter"]
    assert found(ledger, remains, rejected={place: ("conflict", "x"), ("acme", "other"): ("conflict", "x")}) == [
        "dead letter"
    ]
    late = {place: ("conflict", "x"), ("acme", "late"): ("illegal_transition", "dspex.execution.cancel.v1")}
    assert found(ledger, remains, rejected=late) == []
    dead = {"digest": 1, "late": 1, "good": 1}
    assert found(ledger, remains, rejected=late, dead=dead) == ["dead letter"]


def test_what_is_owed_and_what_waits() -> None:
    ledger, remains = world()
    assert found(ledger, remains, unsent=1, waiting=1) == ["unsent", "waiting"]
