"""The log of deliveries: find deliveries, read their attempts, and replay them."""

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
"""The most deliveries to replay in one transaction."""

_D = webhook_deliveries.c


@dataclass(frozen=True)
class LoggedAttempt:
    """A stored attempt."""

    number: int
    at: datetime
    outcome: str
    http_status: int | None
    reason: str | None
    duration_ms: float
    response: str


def delivery(connection: Connection, delivery_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Delivery:
    """The delivery with this id.

    Raises:
        NotFound: there is no such delivery.
    """
    found = select(webhook_deliveries).where(_D.id == delivery_id, _D.tenant == tenant)
    row = connection.execute(found).one_or_none()
    if row is None:
        raise NotFound(f"delivery_id: there is no delivery {delivery_id}")
    return delivery_of(row)


def attempts(connection: Connection, delivery_id: UUID, *, tenant: str = DEFAULT_TENANT) -> list[LoggedAttempt]:
    """The attempts of a delivery, in order."""
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
    """Deliveries that match all given conditions, newest first.

    Args:
        since, until: the delivery was inserted at or after `since`, and before `until`.

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
    """The ids of deliveries that match the filters, in order, beginning after `after`."""
    conditions = _conditions(tenant, endpoint_id, execution_id, status, since, until)
    if after is not None:
        conditions.append(_D.id > after)
    return list(connection.execute(select(_D.id).where(*conditions).order_by(_D.id).limit(limit)).scalars())


def replay(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> int:
    """delivered | failed → pending, due at once, with all tries, under the same ids. Returns how many.

    Skips pending deliveries, and those to an endpoint that is disabled or deleted.
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
    """How many deliveries are pending; counts up to `most`."""
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
        # Part of the text, written like the predicates of the partial indexes.
        conditions.append(_D.status == literal_column(f"'{status}'"))
    if since is not None:
        conditions.append(_D.inserted_at >= since)
    if until is not None:
        conditions.append(_D.inserted_at < until)
    return conditions
