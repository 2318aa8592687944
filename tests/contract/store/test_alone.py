"""A claim that is all of its transaction is committed by its statement. What more belongs to it is not left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, text

from dspex import ExecutionOptions
from store import executions
from store.database.batch import ALONE
from store.database.engine import READ_ONLY
from store.executions import Claimed, Request, Running
from tests.contract.store.rows import ALICE, get, ready_program, request

SOON = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))


def seen_before_the_commit(
    engine: Engine,
    asked: Sequence[Request],
    *,
    now: bool = True,
    promised: bool = True,
    first: Callable[[Connection], object] = lambda _: None,
) -> int:
    """How many of these another session sees while the transaction of their claim is open."""
    with engine.connect() as connection:
        connection.info[ALONE] = promised
        with connection.begin():
            first(connection)
            executions.claim(connection, ALICE, asked, now=[now] * len(asked))
            with engine.connect().execution_options(**READ_ONLY) as other:
                seen = len(executions.get(other, [one.id for one in asked]))
        assert len(executions.get(connection, [one.id for one in asked])) == len(asked)
        connection.info[ALONE] = False
    return seen


def test_one_that_runs_now_is_committed_at_once(engine: Engine) -> None:
    with engine.begin() as connection:
        program_id = ready_program(connection)
    expected = 1 if engine.dialect.name == "postgresql" else 0
    assert seen_before_the_commit(engine, [request(program_id)]) == expected


def test_what_more_belongs_to_it_is_committed_with_it(engine: Engine) -> None:
    with engine.begin() as connection:
        program_id = ready_program(connection)
    stored = replace(request(program_id), inputs={"image": "blob:sha256:" + "0" * 64})
    assert seen_before_the_commit(engine, [request(program_id)], promised=False) == 0
    assert seen_before_the_commit(engine, [request(program_id), request(program_id)]) == 0
    assert seen_before_the_commit(engine, [request(program_id)], now=False) == 0
    assert seen_before_the_commit(engine, [replace(request(program_id), options=SOON)]) == 0
    assert seen_before_the_commit(engine, [replace(request(program_id), idempotency_key="k")]) == 0
    assert seen_before_the_commit(engine, [stored]) == 0
    said = text("SELECT 1")
    assert seen_before_the_commit(engine, [request(program_id)], first=lambda c: c.execute(said)) == 0


def test_one_that_is_there_is_looked_up_in_a_transaction_that_follows(engine: Engine) -> None:
    with engine.begin() as connection:
        asked = request(ready_program(connection))
    with engine.connect() as connection:
        connection.info[ALONE] = True
        with connection.begin():
            [claim] = executions.claim(connection, ALICE, [asked], now=[True])
        with connection.begin():
            [again] = executions.claim(connection, ALICE, [asked], now=[True])
        connection.info[ALONE] = False
        assert isinstance(claim, Claimed)
        assert isinstance(again, Running)
        assert get(connection, asked.id).lock_version == 1
