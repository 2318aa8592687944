"""The operations of deliverers: find, take and settle due deliveries. For all tenants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)

from dspex.contract.status import DeliveryStatus
from dspex.text import storable
from store.column_types import UtcDateTime, database_now
from store.database.batch import encode, records
from store.database.identity import Identity, is_one_of
from store.tables import NOW, executions, webhook_attempts, webhook_deliveries, webhook_endpoints
from store.webhooks.endpoints import disable, of_all_tenants
from store.webhooks.rows import Delivery, Endpoint, delivery_of

_D = webhook_deliveries.c

PENDING = _D.status == literal_column(f"'{DeliveryStatus.PENDING}'")
"""Written like the predicates of the partial indexes."""

BY_NOW = _D.due_at <= select(NOW).scalar_subquery()
"""The condition that a delivery is due. PostgreSQL uses no index with a volatile function, but one with a subquery.
"""


@dataclass(frozen=True)
class Due:
    """A delivery that was taken, and its endpoint; None if that was deleted."""

    delivery: Delivery
    endpoint: Endpoint | None


@dataclass(frozen=True)
class Settled:
    """The result of a delivery that was taken.

    Attributes:
        due: the delivery as it was taken.
        status: the new status; pending: it is tried again in `retry_in` seconds.
        reason: one line for people, if it was not delivered.
        outcome: the outcome of the attempt; None if there was none.
        failed: whether it counts as a failure of the endpoint.
        disable: why the endpoint must be disabled, if it must.
    """

    due: Due
    status: DeliveryStatus
    retry_in: float | None = None
    reason: str | None = None
    outcome: str | None = None
    http_status: int | None = None
    duration_ms: float = 0.0
    response: str = ""
    failed: bool = False
    disable: str | None = None


@dataclass(frozen=True)
class Mine:
    """Selects the deliveries of one process, which leaves all others alone.

    Attributes:
        worker: the name of the process, which the executions that it ran contain.
        since: none of its deliveries was due before this time, so that older ones need not be read.
        told: executions and deliveries that belong to it although it did not run them.
    """

    worker: str
    since: datetime
    told: Sequence[Identity] = ()


def anything_due(connection: Connection, mine: Mine | None = None) -> bool:
    """Whether a delivery is due, of all or of one process. Locks nothing."""
    statement = select(exists(select(_D.id).where(PENDING, BY_NOW, *_of(mine))))
    return bool(connection.execute(statement, _given(mine)).scalar_one())


def _of(mine: Mine | None) -> Sequence[ColumnElement[bool]]:
    if mine is None:
        return ()
    e = executions.c
    of_execution = (e.id == _D.execution_id) & (e.tenant == _D.tenant)
    told = is_one_of(webhook_deliveries, mine.told)
    of_told = is_one_of(executions, mine.told)
    ran = exists(select(e.id).where(of_execution, (e.worker == bindparam("worker", type_=String)) | of_told))
    return (_D.due_at >= bindparam("since", type_=UtcDateTime()), told | ran)


def _given(mine: Mine | None) -> dict[str, Any]:
    return {} if mine is None else {"worker": mine.worker, "since": mine.since}


def places(connection: Connection, after: str, limit: int) -> list[str]:
    """The places with due deliveries, in order, beginning after `after`.

    It steps from place to place in the index, so the number of deliveries for one place does not matter.
    """
    return list(connection.execute(_places(), {"after": after, "number": limit}).scalars())


def take(
    connection: Connection, wanted: Mapping[str, int], lease_seconds: float, mine: Mine | None = None
) -> list[Due]:
    """Take due deliveries, oldest first: up to the wanted number for each place. Concurrent callers take others.

    Args:
        mine: take only those of one process.
    """
    statement = _take() if mine is None else _take_of(_of(mine))
    taken = [
        delivery_of(row)
        for place, number in sorted(wanted.items())
        for row in connection.execute(
            statement, {"at": place, "number": number, "lease_seconds": lease_seconds} | _given(mine)
        )
    ]
    endpoints = {e.identity: e for e in of_all_tenants(connection, {delivery.endpoint for delivery in taken})}
    return [Due(delivery, endpoints.get(delivery.endpoint)) for delivery in taken]


def release(connection: Connection, taken: Sequence[Delivery]) -> int:
    """Give deliveries back that were taken and not settled; they are due at once. Returns how many."""
    statement = _release(connection.dialect.name)
    return len(connection.execute(statement, encode(_held(delivery) for delivery in taken)).all())


def settle(connection: Connection, settled: Sequence[Settled]) -> list[bool]:
    """Record the results of deliveries that still have the lock_version with which they were taken.

    Returns:
        For each, in order, whether it was recorded. False: another deliverer has taken it, it was replayed, or its
    endpoint was disabled.
    """
    dialect = connection.dialect.name
    rows = [_settled_row(item) for item in sorted(settled, key=lambda item: item.due.delivery.id)]
    held = set(connection.execute(_settle(dialect), encode(rows)).scalars())
    kept = [item for item in settled if item.due.delivery.id in held]
    logged = [_attempt_row(item) for item in kept if item.outcome is not None]
    if logged:
        connection.execute(_log(dialect), encode(logged))
    _judge(connection, kept)
    return [item.due.delivery.id in held for item in settled]


def _judge(connection: Connection, settled: Sequence[Settled]) -> None:
    """Update the endpoints by the results of their attempts, where something changes."""
    c = webhook_endpoints.c
    judged = [(item.due.endpoint, item) for item in settled if item.due.endpoint is not None and item.outcome]
    mended = {e.identity for e, item in judged if not item.failed and e.failing_since is not None}
    failing = {e.identity for e, item in judged if item.failed and e.failing_since is None} - mended
    for which, condition, since in (
        (mended, c.failing_since.is_not(None), null()),
        (failing, c.failing_since.is_(None), NOW),
    ):
        if which:
            these = is_one_of(webhook_endpoints, which)
            connection.execute(update(webhook_endpoints).where(these, condition).values(failing_since=since))
    for endpoint, item in {e.identity: (e, item) for e, item in judged if item.disable}.values():
        if of_all_tenants(connection, [endpoint.identity]):
            disable(connection, endpoint.id, item.disable or "", announce=True, tenant=endpoint.tenant)


def _held(delivery: Delivery) -> dict[str, Any]:
    return {"id": delivery.id, "lock_version": delivery.lock_version}


def _settled_row(item: Settled) -> dict[str, Any]:
    return _held(item.due.delivery) | {
        "status": item.status,
        "retry_in": item.retry_in,
        "reason": item.reason and storable(item.reason),
        "attempted": int(item.outcome is not None),
    }


def _attempt_row(item: Settled) -> dict[str, Any]:
    delivery = item.due.delivery
    return {
        "delivery_id": delivery.id,
        "number": delivery.attempts + 1,
        "tenant": delivery.tenant,
        "outcome": item.outcome,
        "http_status": item.http_status,
        "reason": item.reason and storable(item.reason),
        "duration_ms": item.duration_ms,
        "response": storable(item.response),
    }


@lru_cache(maxsize=1)
def _places() -> Any:
    def next_after(place: Any) -> Any:
        return select(func.min(_D.place)).where(PENDING, _D.place > place).scalar_subquery()

    walk = select(next_after(bindparam("after", type_=String)).label("place")).cte("walk", recursive=True)
    walk = walk.union_all(select(next_after(walk.c.place)).where(walk.c.place.is_not(None)))
    # Not EXISTS: PostgreSQL would turn it into a join, and read all pending deliveries.
    first = select(func.min(_D.due_at)).where(PENDING, _D.place == walk.c.place).scalar_subquery()
    return (
        select(walk.c.place)
        .where(walk.c.place.is_not(None), first <= select(NOW).scalar_subquery())
        .limit(bindparam("number", type_=Integer))
    )


@lru_cache(maxsize=1)
def _take() -> Any:
    return _take_of(())


def _take_of(conditions: Sequence[ColumnElement[bool]]) -> Any:
    picked = (
        select(_D.id)
        .where(PENDING, _D.place == bindparam("at", type_=String), BY_NOW, *conditions)
        .order_by(_D.due_at)
        .limit(bindparam("number", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    return (
        update(webhook_deliveries)
        .where(_D.id.in_(select(picked.c.id)))
        .values(
            due_at=database_now(bindparam("lease_seconds", type_=Float)),
            lock_version=_D.lock_version + 1,
            updated_at=NOW,
        )
        .returning(*_D)
    )


@lru_cache(maxsize=2)
def _release(dialect: str) -> Any:
    r = records(dialect, {"id": Uuid(), "lock_version": Integer()})
    return (
        update(webhook_deliveries)
        .where(_D.id == r.c.id, _D.lock_version == r.c.lock_version, PENDING)
        .values(due_at=NOW, lock_version=_D.lock_version + 1, updated_at=NOW)
        .returning(_D.id)
    )


@lru_cache(maxsize=2)
def _settle(dialect: str) -> Any:
    r = records(
        dialect,
        {
            "id": Uuid(),
            "lock_version": Integer(),
            "status": String(),
            "retry_in": Float(),
            "reason": Text(),
            "attempted": Integer(),
        },
    )
    again = r.c.status == DeliveryStatus.PENDING
    return (
        update(webhook_deliveries)
        .where(_D.id == r.c.id, _D.lock_version == r.c.lock_version, PENDING)
        .values(
            status=r.c.status,
            due_at=case((again, database_now(func.coalesce(r.c.retry_in, 0.0))), else_=null()),
            attempts=_D.attempts + r.c.attempted,
            tries=_D.tries + r.c.attempted,
            reason=r.c.reason,
            finished_at=case((again, null()), else_=NOW),
            lock_version=_D.lock_version + 1,
            updated_at=NOW,
        )
        .returning(_D.id)
    )


_ATTEMPT: dict[str, Any] = {
    "delivery_id": Uuid(),
    "number": Integer(),
    "tenant": String(),
    "outcome": String(),
    "http_status": Integer(),
    "reason": Text(),
    "duration_ms": Float(),
    "response": Text(),
}


@lru_cache(maxsize=2)
def _log(dialect: str) -> Any:
    r = records(dialect, _ATTEMPT)
    rows = select(*(r.c[name] for name in _ATTEMPT), NOW)
    return insert(webhook_attempts).from_select([*_ATTEMPT, "at"], rows)
