"""Replays and discards failed executions, which are dead letters.

A replay undoes the end: the execution waits in its queue again, with its id and its history. The same transaction
subtracts it from the counters and deletes its unsent event. The new lock_version fences the worker that ran it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, CursorResult, Row, Select, false, null, select, true, update

from dspex import ExecutionStatus
from dspex.ids import DEFAULT_TENANT
from store import counters, event_outbox, histogram
from store.counters import Counts
from store.database.identity import Identity
from store.executions.statements import FAILED, IS_EXTERNAL, NEVER, QUEUED
from store.executions.timeline import DISCARDED, continued
from store.executions.waiting import wait
from store.queues.keys import key_of
from store.tables import NOW, executions, programs

MAX_REPLAYS = 500
"""The most executions to replay or discard in one transaction, which locks their rows and their programs' counters."""


def replay(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    by: str,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
) -> int:
    """failed → pending, in its queue at once, with all attempts; also for discarded executions.

    Skips executions that are not failed, so repeating it has no effect, external ones, which no worker could run, and
    those whose program was destroyed. The
    usage of earlier attempts stays, and the next ones add to it. The error stays visible until the next end. The
    schedule and the deadline are removed.

    Args:
        by: who replays, for the timeline.
        shard: the shard of the counters.

    Returns:
        How many became pending.
    """
    held = _lock(ids, tenant).where(~IS_EXTERNAL)
    failed = _with_program(connection, connection.execute(held).all(), tenant)
    if not failed:
        return 0
    c, taken = executions.c, [row.id for row in failed]
    waiting = connection.execute(
        update(executions)
        .where(c.id.in_(taken), c.tenant == tenant)
        .values(
            status=ExecutionStatus.PENDING,
            attempt=0,
            lost=0,
            lock_version=c.lock_version + 1,
            run_at=NOW,
            due_at=NEVER,
            **dict.fromkeys(("not_before", "deadline", "carried", "outputs", "duration_ms", "finished_at"), null()),
            cancel_requested=false(),
            discarded=false(),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, 0, by),
        )
        .returning(c.tenant, *QUEUED)
    ).all()
    counters.increment(connection, shard, _taken_back(failed, tenant), executed=False)
    event_outbox.forget(connection, taken, tenant=tenant)
    wait(connection, [(key_of(row), row.run_at) for row in waiting])
    return len(taken)


def discard(connection: Connection, ids: Sequence[UUID], *, by: str, tenant: str = DEFAULT_TENANT) -> int:
    """Mark failed executions as discarded: the rows stay, and are no longer dead letters.

    Args:
        by: who discards, for the timeline.

    Returns:
        How many of them were dead letters.
    """
    c = executions.c
    held = _lock(ids, tenant).where(~c.discarded).with_only_columns(c.id)
    statement = (
        update(executions)
        .where(c.id.in_(held), c.tenant == tenant)
        .values(discarded=true(), updated_at=NOW, timeline=continued(c.timeline, DISCARDED, c.attempt, by))
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def _lock(ids: Sequence[UUID], tenant: str) -> Select[Any]:
    c = executions.c
    columns = [c.id, c.program_id, c.duration_ms, c.input_tokens, c.output_tokens, c.cost]
    return (
        select(*columns)
        .where(c.id.in_(ids), c.tenant == tenant, FAILED)
        # In a fixed order, so that two concurrent requests for the same do not deadlock.
        .order_by(c.id)
        .with_for_update()
    )


def _with_program(connection: Connection, rows: Sequence[Row[Any]], tenant: str) -> list[Row[Any]]:
    """The rows whose program exists, which is locked until the transaction ends. The others could never run."""
    p = programs.c
    there = select(p.id).where(p.id.in_({row.program_id for row in rows}), p.tenant == tenant)
    held = there.order_by(p.id).with_for_update(read=True, key_share=True)
    kept = set(connection.execute(held).scalars()) if rows else set[UUID]()
    return [row for row in rows if row.program_id in kept]


def _taken_back(rows: Sequence[Row[Any]], tenant: str) -> dict[Identity, Counts]:
    """The negative of what `finish` has counted for these."""
    counts: dict[Identity, Counts] = {}
    for row in rows:
        count = counts.setdefault(Identity(row.program_id, tenant), Counts())
        count.failed -= 1
        count.use(row.input_tokens, row.output_tokens, row.cost, times=-1)
        if row.duration_ms is not None:
            count.duration_ms -= row.duration_ms
            bucket = histogram.bucket(row.duration_ms)
            count.durations[bucket] = count.durations.get(bucket, 0) - 1
    return counts
