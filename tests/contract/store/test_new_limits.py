"""A limit that is set while work flows holds from then on, whatever the processes know of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select, update

from dspex import ExecutionOptions, uuid7
from dspex.ids import DEFAULT_TENANT
from store import gates
from store.database.identity import Identity
from store.executions import Claimed, Request, Waiting, get
from store.gates import GateKey, KnownGates, Limits
from store.tables import executions as executions_table
from store.tables import gates as gates_table
from store.tables import programs as programs_table
from store.tables import slots
from tests.contract.store.choosing import choose, ends, program_of, running, waits
from tests.contract.store.rows import ALICE
from workers.persistence.operations import Look, Submission, Writes

LM, OTHER = GateKey("lm", "openai/gpt-4o-mini"), GateKey("lm", "openai/other")


@pytest.fixture
def known() -> KnownGates:
    """The gates of a process, as old as they may be."""
    return KnownGates("alice")


def writes_of(known: KnownGates) -> Writes:
    return Writes(ALICE, 0, gates=known)


def asked(program_id: UUID, number: int = 1, **labels: str) -> list[Request]:
    options = ExecutionOptions()
    return [Request(uuid7(), program_id, {"question": "?"}, options, "/tests", metadata=labels) for _ in range(number)]


def begin(connection: Connection, known: KnownGates, requests: Sequence[Request]) -> list[type]:
    """Messages come, and this process has places."""
    claims = writes_of(known).claim(connection, [Submission(request, now=True) for request in requests])
    return [type(claim) for claim in claims]


@pytest.mark.parametrize("kind", ["lm", "program", "tenant", "label"])
def test_what_runs_already_counts(connection: Connection, kind: str) -> None:
    mine, other = program_of(connection, LM.name), program_of(connection, OTHER.name, "other")
    before = asked(mine, 3, customer="7")
    assert begin(connection, KnownGates("bob"), before) == [Claimed] * 3
    options = ExecutionOptions()
    theirs = Request(uuid7(), other, {"question": "?"}, options, "/tests", tenant="other")
    assert begin(connection, KnownGates("bob"), [theirs]) == [Claimed]
    key = {
        "lm": LM,
        "program": GateKey("program", str(mine), DEFAULT_TENANT),
        "tenant": GateKey("tenant", DEFAULT_TENANT),
        "label": GateKey("label", "customer=7", DEFAULT_TENANT),
    }[kind]
    gates.set_limit(connection, key, Limits(in_flight=4), by="anna")
    process = KnownGates("alice")
    assert begin(connection, process, asked(mine, 9, customer="7")) == [Waiting] * 9
    assert len(choose(connection, process)) == 1
    assert [gate.running for gate in gates.listing(connection)] == [4]
    ends(connection, before[0].identity, 1, process)
    assert len(choose(connection, process)) == 1
    assert running(connection) == 5


def test_a_claim_that_has_not_seen_the_gate_is_waited_for_and_counted(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    with engine.begin() as connection:
        waits(connection, program_id := program_of(connection, LM.name), 9)
    alice, bob = KnownGates("alice"), KnownGates("bob")
    with engine.connect() as late, engine.connect() as early:
        assert begin(late, bob, asked(program_id, 3)) == [Claimed] * 3
        with engine.begin() as connection:
            gates.set_limit(connection, LM, Limits(in_flight=5), by="anna")
        with engine.begin() as connection:
            first = writes_of(alice).choose(connection, [Look(64)])
        assert [(choice.chosen, choice.more) for choice in first] == [([], True)]
        # One that reads no gates, such as a dump or a correction by hand, is not waited for; nor is a later claim.
        early.execute(update(executions_table).where(executions_table.c.attempt < 0).values(attempt=0))
        late.commit()
        with engine.begin() as connection:
            assert len(choose(connection, alice)) == 2
    with engine.begin() as connection:
        assert running(connection) == 5
        assert choose(connection, alice) == []


def test_a_list_that_is_old_lets_nothing_pass(connection: Connection, known: KnownGates) -> None:
    program_id = program_of(connection, LM.name)
    waits(connection, program_id, 3)
    known.refresh(connection)
    gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
    [choice] = writes_of(known).choose(connection, [Look(64)])
    assert (choice.chosen, choice.more) == ([], True)
    [choice] = writes_of(known).choose(connection, [Look(64)])
    assert len(choice.chosen) == 2


def test_what_gives_way_is_new_and_what_comes_again_is_not(connection: Connection, known: KnownGates) -> None:
    requests = asked(program_of(connection, LM.name))
    known.refresh(connection)
    gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
    for new in (True, False):
        [claim] = writes_of(known).claim(connection, [Submission(requests[0], now=True)])
        assert isinstance(claim, Waiting)
        assert claim.new is new


def test_a_claim_under_an_old_list_waits_as_if_it_had_no_place(connection: Connection, known: KnownGates) -> None:
    program_id, free = program_of(connection, LM.name), program_of(connection, OTHER.name)
    assert begin(connection, known, asked(free)) == [Claimed]
    gates.pause(connection, GateKey("program", str(program_id), DEFAULT_TENANT), by="anna")
    held = asked(program_id, 2)
    assert begin(connection, known, [*held, *asked(free)]) == [Waiting, Waiting, Claimed]
    found = get(connection, [one.id for one in held], tenant=DEFAULT_TENANT)
    assert {(one.status, one.attempt) for one in found} == {("pending", 0)}
    gates.resume(connection, GateKey("program", str(program_id), DEFAULT_TENANT), by="anna")
    known.refresh(connection, anyway=True)
    assert {identity for identity, _ in choose(connection, known)} == {one.identity for one in held}


def test_a_program_that_has_turned_to_a_limited_lm(connection: Connection, known: KnownGates) -> None:
    program_id = program_of(connection, OTHER.name)
    gates.set_limit(connection, LM, Limits(in_flight=1), by="anna")
    waits(connection, program_id)
    known.refresh(connection, anyway=True)
    assert len(choose(connection, known)) == 1
    assert begin(connection, known, asked(program_id)) == [Claimed]
    changed = update(programs_table).where(programs_table.c.id == program_id)
    connection.execute(changed.values(configuration={"lm": {"model": LM.name}}, backend_id="another"))
    assert begin(connection, known, asked(program_id, 2)) == [Waiting] * 2
    assert len(choose(connection, known)) == 1


def test_one_that_runs_alone_takes_a_slot(connection: Connection, known: KnownGates) -> None:
    waits(connection, program_id := program_of(connection, LM.name), 2)
    alone = asked(program_id, 1)
    gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
    known.refresh(connection, anyway=True)
    first, _ = choose(connection, known)
    writes_of(known).claim(connection, [Submission(alone[0], now=False)])
    [full] = writes_of(known).claim_alone(connection, alone)
    assert isinstance(full, Waiting)
    ends(connection, *first, known)
    [claimed] = writes_of(known).claim_alone(connection, alone)
    assert isinstance(claimed, Claimed)
    held = connection.execute(select(slots.c.execution_id, slots.c.tenant, slots.c.lock_version)).all()
    assert (alone[0].id, DEFAULT_TENANT, claimed.lock_version) in {tuple(row) for row in held}
    assert [gate.running for gate in gates.listing(connection)] == [2]
    gates.pause(connection, GateKey("worker", "alice"), by="anna")
    connection.execute(update(executions_table).values(status="pending", run_at=executions_table.c.inserted_at))
    [paused] = writes_of(known).claim_alone(connection, alone)
    assert isinstance(paused, Waiting)


def test_whether_what_was_chosen_last_holds_slots(connection: Connection, known: KnownGates) -> None:
    limited, free = program_of(connection, LM.name), program_of(connection, OTHER.name)
    gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
    known.refresh(connection, anyway=True)
    assert not known.limits_work
    waits(connection, limited, 3)
    assert (len(choose(connection, known)), known.limits_work) == (2, True)
    assert (len(choose(connection, known)), known.limits_work) == (0, True)
    waits(connection, free)
    assert (len(choose(connection, known)), known.limits_work) == (1, False)
    gates.set_limit(connection, LM, Limits(in_flight=3), by="anna")
    assert (len(choose(connection, known)), known.limits_work) == (0, False)
    known.refresh(connection, anyway=True)
    assert (len(choose(connection, known)), known.limits_work) == (1, True)
    gates.remove_limit(connection, LM, by="anna")
    known.refresh(connection, anyway=True)
    assert not known.limits_work


def test_a_limit_that_is_set_again_counts_what_began_without_it(connection: Connection, known: KnownGates) -> None:
    waits(connection, program_of(connection, LM.name), 9)
    gates.set_limit(connection, LM, Limits(in_flight=2), by="anna")
    known.refresh(connection, anyway=True)
    assert len(choose(connection, known)) == 2
    gates.remove_limit(connection, LM, by="anna")
    known.refresh(connection, anyway=True)
    assert len(choose(connection, known, places=2)) == 2
    gates.set_limit(connection, LM, Limits(in_flight=5), by="anna")
    known.refresh(connection, anyway=True)
    assert len(choose(connection, known)) == 1
    assert running(connection) == 5


def test_each_change_is_later_than_every_other(connection: Connection) -> None:
    """By the clock alone, two changes at once would look like one, and one after the clock was set back like none."""
    newest = select(gates_table.c.name, gates_table.c.updated_at).order_by(gates_table.c.updated_at.desc())
    seen = set[datetime]()
    for name in ("a", "b", "c"):
        gates.pause(connection, GateKey("lm", name), by="anna")
        seen.add(connection.execute(newest.limit(1)).one().updated_at)
    assert len(seen) == 3
    ahead = update(gates_table).where(gates_table.c.name == "a")
    connection.execute(ahead.values(updated_at=datetime(2999, 1, 1, tzinfo=UTC)))
    gates.pause(connection, GateKey("lm", "d"), by="anna")
    assert connection.execute(newest.limit(1)).one().name == "d"


def test_the_identity_of_what_runs_is_its_tenants_too(connection: Connection) -> None:
    """Two tenants may use the same id: the slot of one is not that of the other."""
    mine, other = program_of(connection, LM.name), program_of(connection, LM.name, "other")
    first = asked(mine)[0]
    second = Request(first.id, other, {"question": "?"}, ExecutionOptions(), "/tests", tenant="other")
    assert begin(connection, KnownGates("bob"), [first, second]) == [Claimed] * 2
    gates.set_limit(connection, LM, Limits(in_flight=3), by="anna")
    waits(connection, mine, 5)
    process = KnownGates("alice")
    assert len(choose(connection, process)) == 1
    ends(connection, Identity(first.id, "other"), 1, process)
    assert len(choose(connection, process)) == 1
