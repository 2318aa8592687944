"""What keeps a claim alive, and what becomes of those that nobody keeps. By worker, for every tenant at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Float,
    bindparam,
    exists,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ExecutionStatus
from store.executions.rows import Lease, Request, request_of
from store.executions.statements import ABANDONED, PENDING, RUNNING
from store.tables import NOW, callbacks, executions
from store.timeline import continued
from store.types import database_now


class Heartbeat(NamedTuple):
    """How many leases were extended, and which of these executions were asked to stop."""

    extended: int
    cancel_requested: frozenset[UUID]


def heartbeat(connection: Connection, lease: Lease, ids: Collection[UUID] | None = None) -> Heartbeat:
    """Extend the lease of what the worker runs, save what is being changed right now.

    Args:
        ids: what it really runs. Without them, all that is claimed in its name: a claim whose answer was lost with the
            connection would be kept from being rescued.
    """
    c = executions.c
    really = true() if ids is None else c.id.in_(ids)
    # It waits for no row: one that is locked is about to end, and waiting could deadlock with the batch that ends it.
    held = select(c.id).where(c.worker == lease.worker, RUNNING, really).with_for_update(skip_locked=True)
    found = connection.execute(
        update(executions)
        .where(c.id.in_(held))
        .values(lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)))
        .returning(c.id, c.cancel_requested)
    ).all()
    return Heartbeat(len(found), frozenset(row.id for row in found if row.cancel_requested))


def release(connection: Connection, lease: Lease, ids: Collection[UUID] | None = None, *, due_in: float = 0.0) -> int:
    """Give up what the worker has claimed: that spends no attempt. Returns how many there were.

    Args:
        ids: these alone, instead of everything.
        due_in: seconds until the relay publishes them.
    """
    c = executions.c
    these = true() if ids is None else c.id.in_(ids)
    held = select(c.id).where(c.worker == lease.worker, RUNNING, these).order_by(c.id).with_for_update()
    statement = (
        update(executions)
        .where(c.id.in_(held))
        .values(
            status=ExecutionStatus.PENDING,
            attempt=c.attempt - 1,
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            due_at=database_now(bindparam("due_in", due_in, Float)),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt - 1, c.worker),
        )
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


# Workers from before migration 0004 know no `due_at`: what they leave pending is due by its lease.
_WAITED_ENOUGH = PENDING & or_(
    executions.c.due_at < NOW, executions.c.due_at.is_(None) & (executions.c.lease_expires_at < NOW)
)


def due(connection: Connection, again_in: float, limit: int) -> list[Request]:
    """Take what is pending and due, for the caller to publish after the commit.

    If that message is lost, it is due again in `again_in` seconds. Any number of callers may do this at once.
    """
    again = database_now(bindparam("again_in", again_in, Float))
    return _take(connection, _WAITED_ENOUGH, limit, due_at=again)


def rescue(connection: Connection, again_in: float, limit: int, *, by: str = "relay") -> list[Request]:
    """Take executions from workers that have not been heard of for a lease, for the caller to publish as in `due`.

    They become pending, so a worker that is alive after all is fenced.
    """
    c = executions.c
    return _take(
        connection,
        ABANDONED,
        limit,
        status=ExecutionStatus.PENDING,
        lock_version=c.lock_version + 1,
        lease_expires_at=null(),
        due_at=database_now(bindparam("again_in", again_in, Float)),
        lost=c.lost + 1,
        updated_at=NOW,
        timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt, by),
    )


def anything_due(connection: Connection) -> bool:
    """Whether a relay has something to do: a look that locks nothing."""
    c = executions.c
    looks = (
        select(c.id).where(_WAITED_ENOUGH),
        select(c.id).where(ABANDONED),
        select(callbacks.c.execution_id).where(callbacks.c.due_at < NOW),
    )
    return bool(connection.execute(select(or_(*(exists(look) for look in looks)))).scalar_one())


def _take(connection: Connection, condition: ColumnElement[bool], limit: int, **changes: Any) -> list[Request]:
    c = executions.c
    # A common table expression is run once; a plain subquery may be run again for each row, each time with a new limit.
    picked = select(c.id).where(condition).limit(limit).with_for_update(skip_locked=True).cte("due")
    statement = (
        update(executions)
        .where(c.id.in_(select(picked.c.id)))
        .values(**changes)
        .returning(c.id, c.program_id, c.inputs, c.options, c.source, c.traceparent, c.tenant, c.callback)
    )
    return [request_of(row) for row in connection.execute(statement)]
