"""What keeps a claim alive, and what becomes of those that nobody keeps. By worker, for every tenant at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Connection, CursorResult, Float, bindparam, select, true, update

from dspex import ExecutionStatus
from store.executions.rows import Lease, Request, request_of
from store.executions.statements import OPEN, RUNNING
from store.tables import NOW, executions
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


def release(connection: Connection, lease: Lease) -> int:
    """Give up everything that the worker runs: a shutdown spends no attempt. Returns how many there were."""
    c = executions.c
    held = select(c.id).where(c.worker == lease.worker, RUNNING).order_by(c.id).with_for_update()
    statement = (
        update(executions)
        .where(c.id.in_(held))
        .values(
            status=ExecutionStatus.PENDING,
            attempt=c.attempt - 1,
            lock_version=c.lock_version + 1,
            lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt - 1, c.worker),
        )
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def rescue(connection: Connection, again_in: float, limit: int, *, by: str = "relay") -> list[Request]:
    """Take executions from workers that have not been heard of for a lease, and those that wait too long.

    They become pending, so a worker that is alive after all is fenced; the caller publishes them after the commit. If
    that message is lost too, they are due again in `again_in` seconds. Any number of callers may do this at once.
    """
    c = executions.c
    # A common table expression is run once; a plain subquery may be run again for each row, each time with a new limit.
    due = select(c.id).where(OPEN, c.lease_expires_at < NOW).limit(limit).with_for_update(skip_locked=True).cte("due")
    statement = (
        update(executions)
        .where(c.id.in_(select(due.c.id)))
        .values(
            status=ExecutionStatus.PENDING,
            lock_version=c.lock_version + 1,
            lease_expires_at=database_now(bindparam("again_in", again_in, Float)),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt, by),
        )
        .returning(c.id, c.program_id, c.inputs, c.options, c.source, c.traceparent, c.tenant)
    )
    return [request_of(row) for row in connection.execute(statement)]
