"""What a process serves: it chooses nothing else, however much else waits, and finds what is behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, update

from dspex import Configuration, ExecutionOptions, uuid7
from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT
from store import executions, gates, programs
from store.database.identity import Identity
from store.executions.choosing import Choice, choose
from store.gates import GateKey, KnownGates, Limits
from store.queues import finding
from store.queues.keys import QueueKey
from store.queues.offers import offer
from store.queues.serving import REMEMBERED_SECONDS, Serving
from store.queues.turns import Turns
from store.tables import programs as programs_table
from tests.contract.store.rows import ALICE, BOB, ready_program, request


def waiting(connection: Connection, program_id: UUID, lane: Lane = Lane.DEFAULT) -> UUID:
    """An execution that waits."""
    asked = replace(request(program_id), options=ExecutionOptions(lane=lane))
    executions.claim(connection, ALICE, [asked], now=[False])
    return asked.id


def program(connection: Connection, adapter_type: str = "mock", environment: str | None = None) -> UUID:
    """A program that is ready."""
    made = programs.create(
        connection,
        uuid7(),
        name="p",
        signature_id=programs.get(connection, ready_program(connection)).signature_id,
        adapter_type=adapter_type,
        configuration=Configuration(environment=environment),
    )
    begun = programs.begin_initialize(connection, made.id)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return made.id


def look(connection: Connection, turns: Turns, places: int = 10) -> Choice:
    return choose(connection, BOB, places, turns, alone_at=3)


def ids(choice: Choice) -> set[UUID]:
    return {one.request.id for one in choice.chosen}


def test_lanes(connection: Connection) -> None:
    made = program(connection)
    high, default, bulk = (waiting(connection, made, lane) for lane in Lane)
    turns = Turns(serving=Serving([Lane.HIGH, Lane.BULK]))
    assert ids(look(connection, turns)) == {high, bulk}
    assert look(connection, turns) == Choice([], more=False)
    assert ids(look(connection, Turns(serving=Serving([Lane.DEFAULT])))) == {default}


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        ({"adapters": ["native"]}, "b"),
        ({"adapters": ["mock", "native"]}, "ab"),
        ({"environments": ["rag"]}, "c"),
        ({"environments": ["-"]}, "ab"),
        ({"environments": ["rag", "-"]}, "abc"),
        ({"adapters": ["python_port"], "environments": ["-"]}, ""),
        ({}, "abc"),
    ],
)
def test_adapters_and_environments(connection: Connection, serving: dict[str, Any], expected: str) -> None:
    made = {
        "a": program(connection),
        "b": program(connection, "native"),
        "c": program(connection, "python_port", "rag"),
    }
    of = {waiting(connection, program_id): name for name, program_id in made.items()}
    turns = Turns(serving=Serving(**serving))
    assert {of[id_] for id_ in ids(look(connection, turns))} == set(expected)
    assert look(connection, turns) == Choice([], more=False)


def test_programs_and_one_that_is_gone(connection: Connection) -> None:
    mine, other, gone = (program(connection) for _ in range(3))
    of = {waiting(connection, one): one for one in (mine, other, gone)}
    connection.execute(programs_table.delete().where(programs_table.c.id == gone))
    assert {of[id_] for id_ in ids(look(connection, Turns(serving=Serving(programs=[mine]))))} == {mine}
    # One that is gone has no adapter: somebody must end what waits of it.
    assert {of[id_] for id_ in ids(look(connection, Turns(serving=Serving(adapters=["native"]))))} == {gone}


def test_what_is_behind_many_others_is_found(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FEWEST_PASSED", 2)
    monkeypatch.setattr(finding, "PASSES", 3)
    others = [program(connection) for _ in range(9)]
    mine = program(connection, "native")  # the last by its id
    for one in (*others, mine):
        waiting(connection, one)
    turns = Turns(serving=Serving(adapters=["native"]))
    looks = [look(connection, turns, places=2) for _ in range(8)]
    assert [len(one.chosen) for one in looks].count(1) == 1  # each look goes on where the last one ended
    assert not any(one.more for one in looks if not one.chosen)
    found = waiting(connection, mine)
    assert found in set[UUID]().union(*(ids(look(connection, turns, places=2)) for _ in range(8)))


def test_what_is_behind_other_tenants_is_found(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FEWEST_PASSED", 2)
    monkeypatch.setattr(finding, "PASSES", 2)
    mine = program(connection)
    # Those of other tenants are empty; it is enough that they are found.
    offer(connection, [(QueueKey(f"a-{number:02}", uuid7(), Lane.DEFAULT.number), None) for number in range(12)])
    waiting(connection, mine)
    turns = Turns(serving=Serving(programs=[mine]))
    assert sum(len(look(connection, turns, places=2).chosen) for _ in range(8)) == 1


def test_no_limit_is_spent_on_what_is_not_served(connection: Connection) -> None:
    other, mine = program(connection), program(connection, "native")
    gates.set_limit(connection, GateKey("tenant", DEFAULT_TENANT), Limits(in_flight=1), by="anna")
    left, mine_waits = waiting(connection, other), waiting(connection, mine)
    known = KnownGates()
    known.refresh(connection)
    turns = Turns(serving=Serving(adapters=["native"]))
    assert ids(choose(connection, BOB, 10, turns, alone_at=3, known=known)) == {mine_waits}
    assert ids(choose(connection, BOB, 10, Turns(), alone_at=3, known=known)) == set()
    gates.set_limit(connection, GateKey("tenant", DEFAULT_TENANT), Limits(in_flight=2), by="anna")
    assert ids(choose(connection, BOB, 10, turns, alone_at=3, known=known)) == set()  # another's, and there is room
    assert ids(choose(connection, BOB, 10, Turns(), alone_at=3, known=known)) == {left}


def test_a_lane_that_goes_on_brings_no_other_back() -> None:
    turns = Turns(serving=Serving([Lane.HIGH, Lane.BULK]))
    turns.leave_out(frozenset({Lane.HIGH.number, Lane.DEFAULT.number}))
    assert set(turns.lanes) == {Lane.BULK.number}
    turns.leave_out(frozenset())
    assert set(turns.lanes) == {Lane.HIGH.number, Lane.BULK.number}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def known(serving: Serving, programs_: Iterable[UUID]) -> list[tuple[bool, bool]]:
    """Whether it takes and refuses each."""
    lane = Lane.DEFAULT.number
    return [(serving.takes(lane, Identity(one)), serving.refuses(lane, Identity(one))) for one in programs_]


def test_what_may_run_at_once_is_what_is_known(connection: Connection) -> None:
    made, other = program(connection), program(connection, "native")
    clock = Clock()
    serving = Serving([Lane.DEFAULT], adapters=["mock"], clock=clock)
    assert known(serving, [made, other]) == [(False, False)] * 2  # not yet
    assert serving.served(connection, [Identity(made), Identity(other)]) == {Identity(made)}
    assert known(serving, [made, other]) == [(True, False), (False, True)]
    assert not serving.takes(Lane.HIGH.number, Identity(made))
    assert serving.refuses(Lane.HIGH.number, Identity(made))
    connection.execute(update(programs_table).values(adapter_type="native").where(programs_table.c.id == made))
    assert serving.served(connection, [Identity(made)]) == {Identity(made)}
    clock.now += REMEMBERED_SECONDS
    assert known(serving, [made, other]) == [(False, False)] * 2  # not any more
    assert serving.served(connection, [Identity(made)]) == set()
    assert known(serving, [made]) == [(False, True)]


def test_everything_is_served_by_default() -> None:
    assert Serving().takes(Lane.BULK.number, Identity(uuid7()))
    assert not Serving().refuses(Lane.BULK.number, Identity(uuid7()))
    assert not Serving().by_program
