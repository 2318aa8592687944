"""Choices: who is next, by lane, tenant, program and age; each execution once; and no queue is left out."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select, update

from dspex import Configuration, ErrorDetail, ExecutionOptions, ExecutionStatus, Usage, uuid7
from dspex.contract.options import Lane
from store import executions, programs, signatures
from store.column_types import database_now
from store.database.identity import Identity
from store.executions import Carried, Claimed, Request, Retry, ToRunAlone, choosing, external
from store.executions.choosing import Choice, choose, wake
from store.executions.ownership import take_over
from store.queues import finding
from store.queues.turns import Turns
from store.tables import executions as executions_table
from store.tables import programs as programs_table
from store.tables import queues
from tests.contract.store.rows import (
    ALICE,
    BOB,
    SIGNATURE,
    get,
    ready_program,
    request,
    take,
)

ALONE_AT = 3


def accept(connection: Connection, *asked: Request) -> list[UUID]:
    """Write them down as waiting, one after the other."""
    for one in asked:
        executions.claim(connection, ALICE, [one], now=[False])
    return [one.id for one in asked]


def chosen(connection: Connection, places: int, turns: Turns | None = None, only: str | None = None) -> list[UUID]:
    return [one.request.id for one in choice(connection, places, turns, only).chosen]


def choice(connection: Connection, places: int, turns: Turns | None = None, only: str | None = None) -> Choice:
    return choose(connection, BOB, places, turns or Turns(), alone_at=ALONE_AT, only=only)


def lane(asked: Request, of: Lane) -> Request:
    return replace(asked, options=ExecutionOptions(lane=of))


def program_of(connection: Connection, tenant: str) -> UUID:
    signature = signatures.create(connection, uuid7(), SIGNATURE, activate=True, tenant=tenant)
    configuration = Configuration()
    program_id = programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature.id,
        adapter_type="mock",
        configuration=configuration,
        tenant=tenant,
    ).id
    begun = programs.begin_initialize(connection, program_id, tenant=tenant)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return program_id


def test_what_waits_is_taken_in_the_order_of_its_age(connection: Connection) -> None:
    program = ready_program(connection)
    ids = accept(connection, *(request(program) for _ in range(7)))
    turns = Turns()
    first = choose(connection, BOB, 3, turns, alone_at=ALONE_AT)
    assert [one.request.id for one in first.chosen] == ids[:3]
    assert first.more
    for one in first.chosen:
        row = get(connection, one.request.id)
        assert isinstance(one.claim, Claimed)
        assert (row.status, row.attempt, row.lock_version, row.worker) == (ExecutionStatus.RUNNING, 1, 2, "bob")
        assert (one.claim.attempt, one.claim.lock_version, one.claim.backend_id) == (1, 2, "backend-1")
        assert [(entry.status, entry.by) for entry in row.timeline][-1] == ("running", "bob")
    assert chosen(connection, 10, turns) == ids[3:]
    assert choice(connection, 10, turns) == Choice([], more=False)


def test_lanes_have_their_shares_and_none_starves(connection: Connection) -> None:
    program = ready_program(connection)
    asked = [request(program) for _ in range(63)]
    of = {one.id: (Lane.HIGH, Lane.DEFAULT, Lane.BULK)[number % 3] for number, one in enumerate(asked)}
    accept(connection, *(lane(one, of[one.id]) for one in asked))
    turns = Turns()
    counted = Counter(of[id_] for id_ in chosen(connection, 21, turns))
    assert counted == {Lane.HIGH: 16, Lane.DEFAULT: 4, Lane.BULK: 1}
    rest = [id_ for _ in range(4) for id_ in chosen(connection, 63, turns)]
    assert len(rest) == 42


def test_tenants_and_programs_take_turns_however_much_each_has(connection: Connection) -> None:
    first, second, zebra = (program_of(connection, tenant) for tenant in ("acme", "acme", "zebra"))
    for program, tenant, number in ((first, "acme", 30), (second, "acme", 6), (zebra, "zebra", 12)):
        accept(connection, *(replace(request(program), tenant=tenant) for _ in range(number)))
    turns, seen = Turns(), Counter[UUID]()
    for _ in range(8):
        seen.update(one.request.program_id for one in choice(connection, 3, turns).chosen)
    assert seen == {zebra: 12, first: 6, second: 6}


def test_what_is_not_due_waits_until_it_is_woken(connection: Connection) -> None:
    program = ready_program(connection)
    later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))
    scheduled, failing = replace(request(program), options=later), request(program)
    accept(connection, scheduled)
    claimed = take(connection, failing)
    carried = Carried()
    retry = Retry(failing.id, claimed.lock_version, 3600.0, 1, ErrorDetail(code="x", message="y"), Usage(), carried)
    assert executions.retry(connection, [retry]) == [True]
    assert choice(connection, 10) == Choice([], more=False)
    assert wake(connection) == 0
    c, q = executions_table.c, queues.c
    connection.execute(update(executions_table).where(c.id == failing.id).values(run_at=database_now(-1.0)))
    connection.execute(update(queues).where(q.wake_at.is_not(None)).values(wake_at=database_now(-1.0)))
    assert wake(connection) == 1
    turns = Turns()
    assert chosen(connection, 10, turns) == [failing.id]
    assert choice(connection, 10, turns) == Choice([], more=False)
    [(holder, wake_at)] = connection.execute(select(q.holder, q.wake_at)).all()
    assert (holder, wake_at) == (None, get(connection, scheduled.id).not_before)


def test_the_last_chance_is_taken_alone(connection: Connection) -> None:
    program = ready_program(connection)
    lost, beside = request(program), request(program)
    accept(connection, lost, beside)
    connection.execute(update(executions_table).where(executions_table.c.id == lost.id).values(lost=2, attempt=2))
    turns = Turns()
    found = {one.request.id: one.claim for one in choice(connection, 10, turns).chosen}
    assert found[lost.id] == ToRunAlone(lost.id)
    assert isinstance(found[beside.id], Claimed)
    assert get(connection, lost.id).status == ExecutionStatus.PENDING
    assert chosen(connection, 10) == []  # it is left to who has found it, for a moment
    [claim] = executions.claim_alone(connection, BOB, [lost])
    assert isinstance(claim, Claimed)


def test_what_a_program_that_is_gone_has_left_does_not_wait_for_ever(connection: Connection) -> None:
    program = ready_program(connection)
    [id_] = accept(connection, request(program))
    connection.execute(programs_table.delete())
    [one] = choice(connection, 10).chosen
    assert isinstance(one.claim, Claimed)
    assert (one.request.id, one.claim.backend_id) == (id_, None)


def test_what_a_service_runs_itself_is_never_chosen(connection: Connection) -> None:
    program = ready_program(connection)
    external.create(connection, request(program))
    assert choice(connection, 10) == Choice([], more=False)


def test_only_its_own(connection: Connection) -> None:
    program = ready_program(connection)
    mine, theirs = accept(connection, request(program), request(program))
    take_over(connection, "bob", [Identity(mine)])
    turns = Turns()
    assert chosen(connection, 10, turns, only="bob") == [mine]
    assert choice(connection, 10, turns, only="bob") == Choice([], more=False)
    assert chosen(connection, 10) == [theirs]


def test_many_that_choose_at_once_take_each_one_once(engine: Engine) -> None:
    with engine.begin() as connection:
        ready = [ready_program(connection) for _ in range(3)]
        asked = [request(ready[number % 3]) for number in range(300)]
        executions.claim(connection, ALICE, asked, now=[False] * len(asked))
    taken: list[UUID] = []
    lock = threading.Lock()

    def work() -> None:
        turns = Turns()
        while True:
            with engine.begin() as connection:
                found = choose(connection, BOB, 8, turns, alone_at=ALONE_AT)
            with lock:
                taken.extend(one.request.id for one in found.chosen)
            if not found.chosen and not found.more:
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(one.id for one in asked)


@pytest.mark.parametrize("before", [True, False])
def test_what_is_offered_while_a_queue_is_marked_is_found(
    engine: Engine, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writes after the queue was found empty: before its row is locked, or when it is, and then it waits."""
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer at a time")
    with engine.begin() as connection:
        program = ready_program(connection)
        first, second = request(program), request(program)
        executions.claim(connection, ALICE, [first], now=[False])
    mark, offered = choosing._mark, threading.Event()

    def other() -> None:
        with engine.begin() as connection:
            executions.claim(connection, ALICE, [second], now=[False])
        offered.set()

    thread = threading.Thread(target=other)

    def marked(connection: Connection, short: list[object]) -> int:
        if before and thread.ident is None:
            thread.start()
            assert offered.wait(30)
        number = mark(connection, short)  # type: ignore[arg-type]
        if thread.ident is None:
            thread.start()
            assert not offered.wait(0.2), "it waits for the queue's row"
        return number

    monkeypatch.setattr(choosing, "_mark", marked)
    with engine.begin() as connection:
        chosen = chosen_in(connection)
    assert chosen[0] == first.id
    assert offered.wait(30)
    thread.join(30)
    monkeypatch.undo()
    with engine.begin() as connection:
        # If it was there before the mark, the same choice may have found it.
        assert chosen + chosen_in(connection) == [first.id, second.id]


def chosen_in(connection: Connection) -> list[UUID]:
    return [one.request.id for one in choose(connection, BOB, 5, Turns(), alone_at=ALONE_AT).chosen]


def test_programs_that_are_left_to_others_hide_none_behind_them(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fewest in ("FEWEST", "FEWEST_PASSED"):
        monkeypatch.setattr(finding, fewest, 4)
    now, turns = [0.0], Turns(clock=lambda: now[0])
    avoided = [request(ready_program(connection)) for _ in range(10)]
    (other,) = accept(connection, *avoided, request(ready_program(connection)))[10:]
    for one in avoided:
        turns.avoid(one.tenant, one.program_id, 3)
    assert chosen(connection, 2, turns) == [other]
    now[0] = 4.0
    assert set(chosen(connection, 20, turns)) == {one.id for one in avoided}


def test_a_queue_that_could_not_be_marked_is_looked_at_again(engine: Engine) -> None:
    """Who offers at this moment tells nobody, as the queue is ready; and what it offers is not seen yet."""
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer at a time")
    with engine.begin() as connection:
        program = ready_program(connection)
        first, second = request(program), request(program)
        executions.claim(connection, ALICE, [first], now=[False])
    with engine.begin() as offering:
        executions.claim(offering, ALICE, [second], now=[False])
        with engine.begin() as connection:
            choice = choose(connection, BOB, 5, Turns(), alone_at=ALONE_AT)
        assert [one.request.id for one in choice.chosen] == [first.id]
        assert choice.more
    with engine.begin() as connection:
        choice = choose(connection, BOB, 5, Turns(), alone_at=ALONE_AT)
    assert [one.request.id for one in choice.chosen] == [second.id]
    assert not choice.more


def test_those_that_offer_to_the_same_ready_queue_do_not_wait_for_one_another(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer at a time")
    with engine.begin() as connection:
        program = ready_program(connection)
        executions.claim(connection, ALICE, [request(program)], now=[False])
    with engine.begin() as one, engine.begin() as other:
        for connection in (one, other):
            connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            executions.claim(connection, ALICE, [request(program)], now=[False])
    with engine.begin() as connection:
        assert len(chosen_in(connection)) == 3
