"""Leases of claims: heartbeat, release, rescue and publishing what is due. Per worker, for all tenants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Row,
    String,
    Uuid,
    bindparam,
    case,
    exists,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ExecutionStatus
from store.column_types import database_now, seconds_until, statement_now
from store.database.batch import encode, records
from store.database.identity import Identity, is_found, is_one_of
from store.executions.rows import KEPT, Lease, Request, request_of
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
    connection: Connection, lease: Lease, which: Collection[Identity] | None = None, *, queued: bool = False
) -> int:
    """Give the worker's claims back, which spends no attempt. Returns how many.

    Args:
        which: only these executions; None: all claims of the worker.
        queued: they wait in their queues, which are offered; else a relay publishes them.
    """
    c = executions.c
    these = true() if which is None else is_one_of(executions, which)
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
            **({"run_at": RUN_AT, "due_at": NEVER} if queued else {"due_at": database_now()}),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt - 1, c.worker),
        )
        .returning(c.tenant, *QUEUED)
    )
    found = connection.execute(statement).all()
    if queued:
        wait(connection, [(key_of(row), row.run_at) for row in found])
    return len(found)


_NOW = statement_now()
# Each condition begins with the columns of a partial index, and they are never combined: else PostgreSQL reads the
# table.
_OVERDUE = PENDING & (executions.c.due_at < _NOW)
# Workers from before migration 0004 do not set `due_at`: their pending rows are due by the lease.
_LEFT = PENDING & executions.c.due_at.is_(None) & (executions.c.lease_expires_at < _NOW)
_LOST = RUNNING & (executions.c.lease_expires_at < _NOW)

MOST_WAITS = 8
"""The longest pause between publishing an execution again, as a multiple of the first pause."""


class Due(NamedTuple):
    """An execution to publish. `again`: it was published before, and no worker has taken it."""

    request: Request
    again: bool


def due(connection: Connection, again_in: float, limit: int, *, only: Collection[Identity] | None = None) -> list[Due]:
    """Take pending executions that are due, oldest first, for the caller to publish after the commit.

    Unless a worker takes it, an execution is due again after `again_in` seconds, which doubles each time up to
    `MOST_WAITS` times as long. Any number of callers may do this concurrently. A call takes up to `limit` executions,
    and as many that older workers have left.

    Args:
        only: take only these executions.
    """
    c = executions.c
    since = case((c.not_before > c.updated_at, c.not_before), else_=c.updated_at)
    waited = -seconds_until(since)
    first = bindparam("again_in", again_in, Float)
    pause = case((waited < 0, first), (waited < first * (MOST_WAITS - 1), first + waited), else_=first * MOST_WAITS)
    # Publishing moves `due_at` by at least `again_in`.
    moved = seconds_until(c.due_at) - seconds_until(since) > first / 2
    picked = [
        *_pick(connection, _OVERDUE, limit, moved.label("again"), only=only),
        *_pick(connection, _LEFT, limit, only=only),
    ]
    again = {_identity(row) for row in picked if getattr(row, "again", False)}
    return [
        Due(request, request.identity in again)
        for row in _take(connection, [_identity(row) for row in picked], due_at=database_now(pause))
        for request in [request_of(row)]
    ]


def rescue(
    connection: Connection, again_in: float, limit: int, *, by: str = "relay", only: Collection[Identity] | None = None
) -> list[Request]:
    """Take executions whose lease has run out from their workers, for the caller to publish.

    They become pending with a new lock_version, which fences a worker that is still alive. They are due in `again_in`
    seconds.
    """
    due = database_now(bindparam("again_in", again_in, Float))
    return [request_of(row) for row in _rescue(connection, limit, by, only, due_at=due)]


def rescue_to_queues(
    connection: Connection, limit: int, *, by: str = "relay", only: Collection[Identity] | None = None
) -> list[Identity]:
    """Take executions whose lease has run out from their workers: they wait in their queues, which are offered.

    The new lock_version fences a worker that is still alive.
    """
    found = _rescue(connection, limit, by, only, run_at=RUN_AT, due_at=NEVER)
    wait(connection, [(key_of(row), row.run_at) for row in found])
    return [_identity(row) for row in found]


def _rescue(
    connection: Connection, limit: int, by: str, only: Collection[Identity] | None, **when: Any
) -> Sequence[Row[Any]]:
    c = executions.c
    return _take(
        connection,
        [_identity(row) for row in _pick(connection, _LOST, limit, only=only)],
        status=ExecutionStatus.PENDING,
        lock_version=c.lock_version + 1,
        lease_expires_at=null(),
        lost=c.lost + 1,
        updated_at=NOW,
        timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt, by),
        **when,
    )


def anything_due(connection: Connection) -> bool:
    """Whether a relay has something to publish. Locks nothing."""
    looks = [exists(select(executions.c.id).where(look)) for look in (_OVERDUE, _LEFT, _LOST)]
    return bool(connection.execute(select(or_(*looks))).scalar_one())


def left(connection: Connection, most: int) -> list[Identity]:
    """Up to `most` executions that are pending, or whose lease has run out; no external ones."""
    c = executions.c
    found = [select(c.id, c.tenant).where(look, ~IS_EXTERNAL).limit(most) for look in (PENDING, _LOST)]
    return [Identity(row.id, row.tenant) for look in found for row in connection.execute(look)][:most]


def _pick(
    connection: Connection,
    condition: ColumnElement[bool],
    limit: int,
    *told: ColumnElement[Any],
    only: Collection[Identity] | None = None,
) -> list[Row[Any]]:
    """Lock rows in the order in which they are due, skipping locked ones."""
    c = executions.c
    found = select(c.id, c.tenant, *told).where(condition).with_for_update(skip_locked=True)
    parameters: dict[str, str] = {}
    if only is not None:
        given = records(connection.dialect.name, {"id": Uuid(), "tenant": String()})
        found = found.where(is_found(executions, select(given.c.id, given.c.tenant)))
        parameters = encode(identity._asdict() for identity in only)
    if condition is _OVERDUE:
        found = found.order_by(c.due_at)
    # Part of the text: for a parameter, PostgreSQL estimates a tenth of the rows that are due, and reads the table.
    most: ColumnElement[int] = literal_column(str(int(limit)))
    return list(connection.execute(found.limit(most), parameters))


def _identity(row: Row[Any]) -> Identity:
    return Identity(row.id, row.tenant)


def _take(connection: Connection, picked: Collection[Identity], **changes: Any) -> Sequence[Row[Any]]:
    if not picked:
        return []
    c = executions.c
    statement = update(executions).where(is_one_of(executions, picked)).values(**changes)
    kept = [c[name] for name in KEPT]
    return connection.execute(statement.returning(*kept, c.lane, c.group_key, c.run_at)).all()
