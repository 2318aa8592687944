"""The log of deliveries: find them, read their attempts, and have them delivered again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, CursorResult, func, literal_column, null, select, update

from dspex.contract.status import DeliveryStatus
from dspex.errors import NotFound
from dspex.ids import DEFAULT_TENANT
from store.database import pages
from store.database.pages import DEFAULT_LIMIT, Page
from store.tables import NOW, webhook_attempts, webhook_deliveries, webhook_endpoints
from store.webhooks.rows import Delivery, delivery_of

MAX_REPLAYS = 500
"""How many one transaction should replay."""

_D = webhook_deliveries.c


@dataclass(frozen=True)
class LoggedAttempt:
    """One attempt, as it is kept."""

    number: int
    at: datetime
    outcome: str
    http_status: int | None
    reason: str | None
    duration_ms: float
    response: str


def delivery(connection: Connection, delivery_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Delivery:
    """The delivery of this id.

    Raises:
        NotFound: there is none.
    """
    found = select(webhook_deliveries).where(_D.id == delivery_id, _D.tenant == tenant)
    row = connection.execute(found).one_or_none()
    if row is None:
        raise NotFound(f"delivery_id: there is no delivery {delivery_id}")
    return delivery_of(row)


def attempts(connection: Connection, delivery_id: UUID, *, tenant: str = DEFAULT_TENANT) -> list[LoggedAttempt]:
    """The attempts of a delivery, in their order."""
    a = webhook_attempts.c
    columns = (a.number, a.at, a.outcome, a.http_status, a.reason, a.duration_ms, a.response)
    found = select(*columns).where(a.delivery_id == delivery_id, a.tenant == tenant).order_by(a.number)
    return [LoggedAttempt(*row) for row in connection.execute(found)]


def deliveries(
    connection: Connection,
    *,
    endpoint_id: UUID | None = None,
    execution_id: UUID | None = None,
    status: DeliveryStatus | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[Delivery]:
    """Deliveries, the newest first: those for which all that is given holds.

    Args:
        since, until: they were inserted at or after the one, and before the other.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    conditions = _conditions(tenant, endpoint_id, execution_id, status, since, until)
    statement = select(webhook_deliveries).where(*conditions)
    return pages.read(connection, statement, webhook_deliveries, delivery_of, cursor=cursor, limit=limit)


def replayable(
    connection: Connection,
    after: UUID | None,
    *,
    endpoint_id: UUID | None = None,
    execution_id: UUID | None = None,
    status: DeliveryStatus = DeliveryStatus.FAILED,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = MAX_REPLAYS,
    tenant: str = DEFAULT_TENANT,
) -> list[UUID]:
    """The ids of deliveries that a filter finds, in their order, from the one after `after`."""
    conditions = _conditions(tenant, endpoint_id, execution_id, status, since, until)
    if after is not None:
        conditions.append(_D.id > after)
    return list(connection.execute(select(_D.id).where(*conditions).order_by(_D.id).limit(limit)).scalars())


def replay(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> int:
    """delivered | failed → pending, due at once, with all their tries, under the same ids. Returns how many.

    What is pending is left as it is; so is what goes to an endpoint that is disabled or deleted.
    """
    e = webhook_endpoints.c
    open_ = select(e.id).where(e.tenant == tenant, e.enabled)
    statement = (
        update(webhook_deliveries)
        .where(_D.id.in_(ids), _D.tenant == tenant, _D.status != DeliveryStatus.PENDING, _D.endpoint_id.in_(open_))
        .values(
            status=DeliveryStatus.PENDING,
            due_at=NOW,
            tries=0,
            finished_at=null(),
            lock_version=_D.lock_version + 1,
            updated_at=NOW,
        )
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def waiting(connection: Connection, most: int, *, tenant: str = DEFAULT_TENANT) -> int:
    """How many wait to be delivered, now or later: so many at most are counted."""
    pending = _D.status == literal_column(f"'{DeliveryStatus.PENDING}'")
    some = select(_D.id).where(pending, _D.tenant == tenant).limit(most).subquery()
    number: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return number


def _conditions(
    tenant: str,
    endpoint_id: UUID | None,
    execution_id: UUID | None,
    status: DeliveryStatus | None,
    since: datetime | None,
    until: datetime | None,
) -> list[Any]:
    conditions: list[Any] = [_D.tenant == tenant]
    if endpoint_id is not None:
        conditions.append(_D.endpoint_id == endpoint_id)
    if execution_id is not None:
        conditions.append(_D.execution_id == execution_id)
    if status is not None:
        # Part of the text, as the partial indexes write it.
        conditions.append(_D.status == literal_column(f"'{status}'"))
    if since is not None:
        conditions.append(_D.inserted_at >= since)
    if until is not None:
        conditions.append(_D.inserted_at < until)
    return conditions
