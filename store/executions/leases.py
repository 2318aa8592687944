"""Leases of claims: heartbeat, release and rescue. Per worker, for all tenants."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    String,
    Uuid,
    bindparam,
    exists,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ExecutionStatus
from store.column_types import database_now, statement_now
from store.database.batch import encode, records
from store.database.identity import Identity, is_found, is_one_of
from store.executions.adoption import LEFT
from store.executions.claims import (
    Lease,
)
from store.executions.statements import IS_EXTERNAL, NEVER, PENDING, QUEUED, RUN_AT, RUNNING
from store.executions.timeline import continued
from store.executions.waiting import wait
from store.queues.keys import key_of
from store.tables import NOW, executions


class Heartbeat(NamedTuple):
    """How many leases were extended, and which of the executions have a cancel request."""

    extended: int
    cancel_requested: frozenset[Identity]


def heartbeat(connection: Connection, lease: Lease, which: Collection[Identity] | None = None) -> Heartbeat:
    """Extend the leases of the worker's executions, except rows that are locked at the moment.

    Args:
        which: the executions that it really runs. None: all that are claimed in its name, which includes a claim whose
            answer was lost with the connection, and so would never be rescued.
    """
    c = executions.c
    really = true() if which is None else is_one_of(executions, which)
    # Waits for no row: a locked one is about to end, and waiting could deadlock with the batch that ends it.
    held = select(c.id, c.tenant).where(c.worker == lease.worker, RUNNING, really).with_for_update(skip_locked=True)
    found = connection.execute(
        update(executions)
        .where(is_found(executions, held))
        .values(lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)))
        .returning(c.id, c.tenant, c.cancel_requested)
    ).all()
    return Heartbeat(len(found), frozenset(Identity(row.id, row.tenant) for row in found if row.cancel_requested))


def release(
    connection: Connection,
    lease: Lease,
    which: Collection[Identity] | None = None,
    *,
    besides: Collection[Identity] = (),
) -> int:
    """Give the worker's claims back, which spends no attempt: they wait in their queues, which are offered.

    Args:
        which: only these executions; None: all claims of the worker.
        besides: not these.

    Returns:
        How many.
    """
    c = executions.c
    these = true() if which is None else is_one_of(executions, which)
    if besides:
        these &= ~is_one_of(executions, besides)
    held = select(c.id, c.tenant).where(c.worker == lease.worker, RUNNING, these)
    held = held.order_by(c.id, c.tenant).with_for_update()
    statement = (
        update(executions)
        .where(is_found(executions, held))
        .values(
            status=ExecutionStatus.PENDING,
            attempt=c.attempt - 1,
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            run_at=RUN_AT,
            due_at=NEVER,
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt - 1, c.worker),
        )
        .returning(c.tenant, *QUEUED)
    )
    found = connection.execute(statement).all()
    wait(connection, [(key_of(row), row.run_at) for row in found])
    return len(found)


# Begins with the column of a partial index, as those of `adoption.LEFT`.
_LOST = RUNNING & (executions.c.lease_expires_at < statement_now())


def rescue(
    connection: Connection, limit: int, *, by: str = "relay", only: Collection[Identity] | None = None
) -> list[Identity]:
    """Take executions whose lease has run out from their workers: they wait in their queues, which are offered.

    The new lock_version fences a worker that is still alive. Any number of callers may do this concurrently.

    Args:
        by: who does, for the timeline.
        only: only these executions.
    """
    lost = _lost(connection, limit, only)
    if not lost:
        return []
    c = executions.c
    found = connection.execute(
        update(executions)
        .where(is_one_of(executions, lost))
        .values(
            status=ExecutionStatus.PENDING,
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            run_at=RUN_AT,
            due_at=NEVER,
            lost=c.lost + 1,
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt, by),
        )
        .returning(c.id, c.tenant, *QUEUED)
    ).all()
    wait(connection, [(key_of(row), row.run_at) for row in found])
    return [Identity(row.id, row.tenant) for row in found]


def _lost(connection: Connection, limit: int, only: Collection[Identity] | None) -> list[Identity]:
    """Lock executions whose lease has run out, skipping locked ones."""
    c = executions.c
    found = select(c.id, c.tenant).where(_LOST).with_for_update(skip_locked=True)
    parameters: dict[str, str] = {}
    if only is not None:
        given = records(connection.dialect.name, {"id": Uuid(), "tenant": String()})
        found = found.where(is_found(executions, select(given.c.id, given.c.tenant)))
        parameters = encode(identity._asdict() for identity in only)
    # Part of the text: for a parameter, PostgreSQL estimates a tenth of the rows that are due, and reads the table.
    most: ColumnElement[int] = literal_column(str(int(limit)))
    return [Identity(row.id, row.tenant) for row in connection.execute(found.limit(most), parameters)]


def anything_due(connection: Connection) -> bool:
    """Whether a relay has something to `rescue` or to `adopt`. Locks nothing."""
    looks = [exists(select(executions.c.id).where(look)) for look in (*LEFT, _LOST)]
    return bool(connection.execute(select(or_(*looks))).scalar_one())


def left(connection: Connection, most: int) -> list[Identity]:
    """Up to `most` executions that are pending, or whose lease has run out; no external ones."""
    c = executions.c
    found = [select(c.id, c.tenant).where(look, ~IS_EXTERNAL).limit(most) for look in (PENDING, _LOST)]
    return [Identity(row.id, row.tenant) for look in found for row in connection.execute(look)][:most]
