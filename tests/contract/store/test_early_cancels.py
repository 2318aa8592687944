"""Early cancels: an execution that is cancelled before its command is accepted does not run."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, Engine, select, update

from dspex import ExecutionStatus
from store import executions
from store.column_types import database_now
from store.executions import Claimed, Waiting, early
from store.tables import early_cancels
from tests.contract.store.rows import ALICE, get, ready_program, request, waits_for_a_lock
from tests.waiting import wait_until


def test_what_is_accepted_then_is_to_be_cancelled(connection: Connection) -> None:
    program = ready_program(connection)
    runs, waits, other = request(program), request(program), request(program)
    for one in (runs, waits):
        early.leave(connection, one.id, by="ann")
        early.leave(connection, one.id, by="ann")
    early.leave(connection, other.id, by="ann", tenant="other")
    claims = executions.claim(connection, ALICE, [runs, waits, other], now=[True, False, True])
    assert isinstance(claims[0], Claimed)
    assert claims[0].cancel_requested
    assert isinstance(claims[1], Waiting)
    assert [get(connection, one.id).cancel_requested for one in (runs, waits, other)] == [True, True, False]
    assert executions.cancel(connection, waits.id, by="ann").status == ExecutionStatus.CANCELLED


def test_one_that_was_taken_back_cancels_nothing(connection: Connection) -> None:
    asked = request(ready_program(connection))
    early.leave(connection, asked.id, by="ann")
    early.take_back(connection, asked.id)
    executions.claim(connection, ALICE, [asked], now=[True])
    assert not get(connection, asked.id).cancel_requested


def test_what_a_dead_worker_has_left_is_swept(connection: Connection) -> None:
    c = early_cancels.c
    old, renewed, new = (request(ready_program(connection)) for _ in range(3))
    for one in (old, renewed):
        early.leave(connection, one.id, by="ann")
    connection.execute(update(early_cancels).values(inserted_at=database_now(-early.KEPT_SECONDS - 1)))
    assert early.anything_old(connection)
    for one in (renewed, new):
        early.leave(connection, one.id, by="ann")
    assert early.sweep(connection) == 1
    assert not early.anything_old(connection)
    assert set(connection.execute(select(c.execution_id)).scalars()) == {renewed.id, new.id}


@pytest.mark.parametrize("first", ["claim", "take_back"])
def test_it_is_taken_back_before_a_claim_has_found_it_or_after_its_row_is_there(engine: Engine, first: str) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("it has one writer")
    with engine.begin() as connection:
        asked = request(ready_program(connection))
        early.leave(connection, asked.id, by="ann")
    done = list[bool]()

    def second() -> None:
        with engine.begin() as connection:
            if first == "claim":
                early.take_back(connection, asked.id)
                done.append(bool(executions.get(connection, [asked.id])))
            else:
                (claim,) = executions.claim(connection, ALICE, [asked], now=[True])
                done.append(isinstance(claim, Claimed) and claim.cancel_requested)

    thread = threading.Thread(target=second)
    with engine.begin() as connection:
        if first == "claim":
            executions.claim(connection, ALICE, [asked], now=[True])
        else:
            early.take_back(connection, asked.id)
        thread.start()
        wait_until(lambda: waits_for_a_lock(engine), "it waits for the other")
        assert not done
    thread.join(10)
    assert done == [first == "claim"]
