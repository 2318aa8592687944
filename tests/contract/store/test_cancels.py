"""Cancels of many executions: each ends, is counted and told as one that is cancelled alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, select, update

from dspex import ExecutionStatus, uuid7
from dspex.contract.options import Lane
from store import counters, event_outbox, executions
from store.counters import Counts
from store.executions import Heartbeat, external
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    accept,
    completed,
    failed,
    get,
    ready_program,
    request,
    row,
    take,
    told,
)


def cancel(connection: Connection, *ids: UUID, **options: Any) -> list[UUID]:
    cancelled = executions.cancel_many(connection, ids, by="ann", shard=5, **options)
    assert cancelled.locked == []
    assert sorted(cancelled.executions, key=lambda one: one.id) == [
        get(connection, one.id) for one in sorted(cancelled.executions, key=lambda one: one.id)
    ]
    return [one.id for one in cancelled.executions]


def unended(connection: Connection, **filters: Any) -> list[UUID]:
    """Every page, each of one."""
    found, cursor = list[UUID](), None
    while True:
        page = executions.unended(connection, **{"limit": 1, **filters}, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


class TestCancelMany:
    def test_what_is_pending_ends_and_what_runs_is_marked(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        pending, running, ended, served = (request(program_id) for _ in range(4))
        accept(connection, pending)
        claimed = take(connection, running)
        executions.finish(connection, 0, [completed(ended, take(connection, ended))])
        external.create(connection, served)
        before = row(connection, ended.id)
        ids = [pending.id, running.id, ended.id, served.id, uuid7()]
        assert set(cancel(connection, *ids)) == {pending.id, running.id, served.id}
        for one, by in ((pending, "alice"), (served, "/tests")):
            assert get(connection, one.id).status == ExecutionStatus.CANCELLED
            assert told(connection, one.id) == [("pending", 0, by), ("cancelled", 0, "ann")]
        assert row(connection, ended.id) == before
        assert executions.heartbeat(connection, ALICE) == Heartbeat(1, frozenset({running.identity}))
        assert get(connection, running.id).lock_version == claimed.lock_version
        totals = counters.totals(connection, program_id)
        assert (totals.cancelled, totals.completed) == (2, 1)
        assert event_outbox.pending(connection, ids) == {pending.id, served.id, ended.id}
        assert cancel(connection, *ids) == []
        assert counters.totals(connection, program_id) == totals

    def test_each_program_is_counted(self, connection: Connection) -> None:
        asked = [request(program_id) for program_id in (ready_program(connection), ready_program(connection)) * 2]
        for one in asked:
            accept(connection, one)
        assert len(cancel(connection, *(one.id for one in asked))) == 4
        for one in asked[:2]:
            assert counters.totals(connection, one.program_id) == Counts(cancelled=2, tokens_known=2, cost_known=2)

    def test_of_another_tenant_is_left(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        accept(connection, asked)
        assert cancel(connection, asked.id, tenant="other") == []
        assert get(connection, asked.id).status == ExecutionStatus.PENDING

    def test_what_another_transaction_holds_is_told_and_not_waited_for(self, engine: Engine) -> None:
        if engine.dialect.name == "sqlite":
            return  # there is one writer
        c = executions_table.c
        with engine.begin() as connection:
            program_id = ready_program(connection)
            held, free = request(program_id), request(program_id)
            for one in (held, free):
                accept(connection, one)
        with engine.begin() as other, engine.begin() as connection:
            other.execute(select(c.id).where(c.id == held.id).with_for_update())
            cancelled = executions.cancel_many(connection, [held.id, free.id], by="ann")
            assert [one.id for one in cancelled.executions] == [free.id]
            assert cancelled.locked == [held.id]


class TestUnended:
    def test_is_what_a_filter_finds(self, connection: Connection) -> None:
        c = executions_table.c
        program_id = ready_program(connection)
        kinds = ("pending", "running", "marked", "ended")
        asked = {kind: replace(request(program_id), metadata={"kind": kind, "batch": "7"}) for kind in kinds}
        accept(connection, asked["pending"])
        claims = {kind: take(connection, asked[kind]) for kind in kinds[1:]}
        executions.finish(connection, 0, [failed(asked["ended"], claims["ended"])])
        executions.cancel(connection, asked["marked"].id, by="ann")
        of = {kind: one.id for kind, one in asked.items()}
        now = get(connection, of["pending"]).inserted_at
        both = {of["pending"], of["running"]}
        assert set(unended(connection)) == both
        assert set(unended(connection, program_id=program_id, metadata={"batch": "7"})) == both
        assert unended(connection, metadata={"kind": "running"}) == [of["running"]]
        assert unended(connection, status=ExecutionStatus.PENDING) == [of["pending"]]
        assert unended(connection, status=ExecutionStatus.RUNNING) == [of["running"]]
        assert unended(connection, program_id=uuid7()) == unended(connection, tenant="other") == []
        assert unended(connection, until=now - timedelta(hours=1)) == []
        assert set(unended(connection, since=now - timedelta(hours=1))) == both
        connection.execute(update(executions_table).where(c.id == of["pending"]).values(lane=2, error_code="timeout"))
        assert unended(connection, lane=Lane.BULK) == unended(connection, error_code="timeout") == [of["pending"]]
        assert unended(connection, lane=Lane.DEFAULT) == [of["running"]]

    def test_a_page_looks_through_so_many_and_the_next_one_goes_on(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        first, last = request(program_id), request(program_id)
        accept(connection, first)
        for _ in range(5):
            ended = request(program_id)
            executions.finish(connection, 0, [completed(ended, take(connection, ended))])
        accept(connection, last)
        page = executions.unended(connection, limit=10, most=3)
        assert len(page.items) < 2
        assert page.next_cursor is not None
        assert sorted(unended(connection, most=3)) == sorted([first.id, last.id])
