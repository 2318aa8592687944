"""What keeps a claim alive, and what becomes of those that nobody keeps. By worker, for every tenant at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
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
from store.executions.statements import PENDING, RUNNING
from store.executions.timeline import continued
from store.tables import NOW, executions


class Heartbeat(NamedTuple):
    """How many leases were extended, and which of these executions were asked to stop."""

    extended: int
    cancel_requested: frozenset[Identity]


def heartbeat(connection: Connection, lease: Lease, which: Collection[Identity] | None = None) -> Heartbeat:
    """Extend the lease of what the worker runs, save what is being changed right now.

    Args:
        which: what it really runs. Without it, all that is claimed in its name: a claim whose answer was lost with
            the connection would be kept from being rescued.
    """
    c = executions.c
    really = true() if which is None else is_one_of(executions, which)
    # It waits for no row: one that is locked is about to end, and waiting could deadlock with the batch that ends it.
    held = select(c.id, c.tenant).where(c.worker == lease.worker, RUNNING, really).with_for_update(skip_locked=True)
    found = connection.execute(
        update(executions)
        .where(is_found(executions, held))
        .values(lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)))
        .returning(c.id, c.tenant, c.cancel_requested)
    ).all()
    return Heartbeat(len(found), frozenset(Identity(row.id, row.tenant) for row in found if row.cancel_requested))


def release(
    connection: Connection, lease: Lease, which: Collection[Identity] | None = None, *, due_in: float = 0.0
) -> int:
    """Give up what the worker has claimed: that spends no attempt. Returns how many there were.

    Args:
        which: these alone, instead of everything.
        due_in: seconds until the relay publishes them.
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
            due_at=database_now(bindparam("due_in", due_in, Float)),
            updated_at=NOW,
            timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt - 1, c.worker),
        )
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


_NOW = statement_now()
# Looks begin with the columns of partial indexes, and never ask two things at once: else they would read the table.
_OVERDUE = PENDING & (executions.c.due_at < _NOW)
# Workers from before migration 0004 know no `due_at`: what they leave pending is due by its lease.
_LEFT = PENDING & executions.c.due_at.is_(None) & (executions.c.lease_expires_at < _NOW)
_LOST = RUNNING & (executions.c.lease_expires_at < _NOW)

MOST_WAITS = 8
"""How many times longer than at first what nobody takes waits at last, until it is due again."""


class Due(NamedTuple):
    """What is to be published. `again`: it has been before, and nobody has taken it."""

    request: Request
    again: bool


def due(connection: Connection, again_in: float, limit: int, *, only: Collection[Identity] | None = None) -> list[Due]:
    """Take what is pending and due, for the caller to publish after the commit: what has waited longest comes first.

    It is due again in `again_in` seconds, twice as long each time, `MOST_WAITS` times at most, unless it is taken. Any
    number of callers may do this at once. Each takes up to `limit`, and as many of what older workers have left.

    Args:
        only: of these executions alone.
    """
    c = executions.c
    since = case((c.not_before > c.updated_at, c.not_before), else_=c.updated_at)
    waited = -seconds_until(since)
    first = bindparam("again_in", again_in, Float)
    pause = case((waited < 0, first), (waited < first * (MOST_WAITS - 1), first + waited), else_=first * MOST_WAITS)
    # Whoever publishes it moves it by `again_in` at least.
    moved = seconds_until(c.due_at) - seconds_until(since) > first / 2
    picked = [
        *_pick(connection, _OVERDUE, limit, moved.label("again"), only=only),
        *_pick(connection, _LEFT, limit, only=only),
    ]
    again = {_identity(row) for row in picked if getattr(row, "again", False)}
    return [
        Due(request, request.identity in again)
        for request in _take(connection, [_identity(row) for row in picked], due_at=database_now(pause))
    ]


def rescue(
    connection: Connection, again_in: float, limit: int, *, by: str = "relay", only: Collection[Identity] | None = None
) -> list[Request]:
    """Take executions from workers that have not been heard of for a lease, for the caller to publish.

    They become pending, so a worker that is alive after all is fenced. They are due in `again_in` seconds.
    """
    c = executions.c
    return _take(
        connection,
        [_identity(row) for row in _pick(connection, _LOST, limit, only=only)],
        status=ExecutionStatus.PENDING,
        lock_version=c.lock_version + 1,
        lease_expires_at=null(),
        due_at=database_now(bindparam("again_in", again_in, Float)),
        lost=c.lost + 1,
        updated_at=NOW,
        timeline=continued(c.timeline, ExecutionStatus.PENDING, c.attempt, by),
    )


def anything_due(connection: Connection) -> bool:
    """Whether a relay has something to publish: a look that locks nothing."""
    looks = [exists(select(executions.c.id).where(look)) for look in (_OVERDUE, _LEFT, _LOST)]
    return bool(connection.execute(select(or_(*looks))).scalar_one())


def left(connection: Connection, most: int) -> list[Identity]:
    """Executions that are pending, or whose worker has not been heard of for a lease: as many as are asked for."""
    c = executions.c
    found = [select(c.id, c.tenant).where(look).limit(most) for look in (PENDING, _LOST)]
    return [Identity(row.id, row.tenant) for look in found for row in connection.execute(look)][:most]


def _pick(
    connection: Connection,
    condition: ColumnElement[bool],
    limit: int,
    *told: ColumnElement[Any],
    only: Collection[Identity] | None = None,
) -> list[Row[Any]]:
    """Lock some, in the order in which they are due, without waiting for any."""
    c = executions.c
    found = select(c.id, c.tenant, *told).where(condition).with_for_update(skip_locked=True)
    parameters: dict[str, str] = {}
    if only is not None:
        given = records(connection.dialect.name, {"id": Uuid(), "tenant": String()})
        found = found.where(is_found(executions, select(given.c.id, given.c.tenant)))
        parameters = encode(identity._asdict() for identity in only)
    if condition is _OVERDUE:
        found = found.order_by(c.due_at)
    # Part of the text: by a parameter, PostgreSQL would think of a tenth of what is due, and read the table.
    most: ColumnElement[int] = literal_column(str(int(limit)))
    return list(connection.execute(found.limit(most), parameters))


def _identity(row: Row[Any]) -> Identity:
    return Identity(row.id, row.tenant)


def _take(connection: Connection, picked: Collection[Identity], **changes: Any) -> list[Request]:
    if not picked:
        return []
    c = executions.c
    taken = connection.execute(
        update(executions).where(is_one_of(executions, picked)).values(**changes).returning(*(c[name] for name in KEPT))
    )
    return [request_of(row) for row in taken]
