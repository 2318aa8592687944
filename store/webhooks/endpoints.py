"""Endpoints: those registered by a tenant, and those from callbacks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Float, bindparam, exists, false, func, null, select, true
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows

from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.errors import Conflict, IllegalTransition, InvalidValues, NotFound, Problem
from dspex.ids import DEFAULT_TENANT
from dspex.text import storable
from store.column_types import database_now, seconds_until
from store.database import pages
from store.database.batch import upsert
from store.database.identity import Identity, is_found, is_one_of
from store.database.pages import DEFAULT_LIMIT, Page
from store.tables import NOW, REGISTERED, webhook_deliveries, webhook_endpoints
from store.webhooks.rows import Endpoint, endpoint_of

MAX_REGISTERED = 50
"""How many endpoints a tenant may register, as each end of an execution adds a row for each of them."""

_C = webhook_endpoints.c
SELECT = select(
    webhook_endpoints,
    seconds_until(_C.failing_since).label("failing_left"),
    seconds_until(_C.previous_until).label("previous_left"),
)


def columns_of(callback: Callback) -> dict[str, Any]:
    """The columns of an endpoint that a callback sets."""
    return callback.model_dump(mode="json")


def register(
    connection: Connection, endpoint_id: UUID, callback: Callback, *, tenant: str = DEFAULT_TENANT
) -> Endpoint:
    """Insert an endpoint. The same id with the same content again changes nothing.

    Raises:
        Conflict: the id belongs to another endpoint.
        InvalidValues: the tenant has the most endpoints that it may have.
    """
    found = _find(connection, endpoint_id, tenant)
    if found is None:
        number = connection.execute(select(func.count()).where(_C.tenant == tenant, REGISTERED)).scalar_one()
        if number >= MAX_REGISTERED:
            problem = f"{number} are registered, and more are not allowed: delete one"
            raise InvalidValues([Problem("endpoint_id", problem)])
        connection.execute(
            upsert(connection)(webhook_endpoints)
            .values(
                id=endpoint_id,
                tenant=tenant,
                registered=true(),
                **columns_of(callback),
                inserted_at=NOW,
                updated_at=NOW,
            )
            .on_conflict_do_nothing()
        )
        found = _find(connection, endpoint_id, tenant)
    if found is None or (found.callback, found.registered) != (callback, True):
        raise Conflict(f"endpoint_id: {endpoint_id} belongs to another endpoint")
    return found


def update(
    connection: Connection,
    endpoint_id: UUID,
    callback: Callback,
    *,
    lock_version: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Endpoint:
    """Replace the data of a registered endpoint. Ends a rotation of its secret.

    Args:
        lock_version: the version on which the change is based; None: the current one.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: the endpoint was changed meanwhile.
        IllegalTransition: the endpoint is from a callback, which defines it.
    """
    before = _registered(connection, endpoint_id, tenant, "updated")
    if lock_version not in (None, before.lock_version):
        raise Conflict(f"endpoint {endpoint_id} has been changed: it is at lock_version {before.lock_version}")
    changes: dict[str, Any] = columns_of(callback) | {"previous_secret": null(), "previous_until": null()}
    return _change(connection, before, **changes)


def rotate(
    connection: Connection, endpoint_id: UUID, secret: str, overlap: float, *, tenant: str = DEFAULT_TENANT
) -> Endpoint:
    """Sign with another secret, and for `overlap` seconds also with the previous one. The same one changes nothing.

    Raises:
        NotFound: there is no such endpoint.
        IllegalTransition: the endpoint is from a callback, which defines it.
    """
    before = _registered(connection, endpoint_id, tenant, "rotated")
    if before.callback.secret == secret:
        return before
    until = database_now(bindparam("overlap", overlap, Float))
    return _change(connection, before, secret=secret, previous_secret=before.callback.secret, previous_until=until)


def enable(connection: Connection, endpoint_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Endpoint:
    """Resume deliveries to an endpoint. Earlier failures no longer count.

    Raises:
        NotFound: there is no such endpoint.
    """
    before = endpoint(connection, endpoint_id, tenant=tenant)
    cleared = dict.fromkeys(("disabled_reason", "disabled_at", "failing_since", "announce_at"), null())
    return before if before.enabled else _change(connection, before, enabled=true(), **cleared)


def disable(
    connection: Connection, endpoint_id: UUID, reason: str, *, announce: bool = False, tenant: str = DEFAULT_TENANT
) -> Endpoint:
    """Stop deliveries to an endpoint. Its pending deliveries become failed.

    Args:
        announce: whether to notify operators.

    Raises:
        NotFound: there is no such endpoint.
    """
    before = endpoint(connection, endpoint_id, tenant=tenant)
    if not before.enabled:
        return before
    reason = storable(reason)
    announce_at = NOW if announce else null()
    changed = _change(
        connection, before, enabled=false(), disabled_reason=reason, disabled_at=NOW, announce_at=announce_at
    )
    _fail_pending(connection, before, f"the endpoint was disabled: {reason}")
    return changed


def delete(connection: Connection, endpoint_id: UUID, *, tenant: str = DEFAULT_TENANT) -> None:
    """Delete an endpoint. Its pending deliveries become failed; all its deliveries stay in the log.

    Raises:
        NotFound: there is no such endpoint.
    """
    before = endpoint(connection, endpoint_id, tenant=tenant)
    connection.execute(delete_rows(webhook_endpoints).where(_C.id == endpoint_id, _C.tenant == tenant))
    _fail_pending(connection, before, "the endpoint was deleted")


def endpoint(connection: Connection, endpoint_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Endpoint:
    """The endpoint with this id.

    Raises:
        NotFound: there is no such endpoint.
    """
    found = _find(connection, endpoint_id, tenant)
    if found is None:
        raise NotFound(f"endpoint_id: there is no endpoint {endpoint_id}")
    return found


def endpoints(
    connection: Connection,
    *,
    registered: bool = True,
    enabled: bool | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[Endpoint]:
    """Endpoints, newest first: either registered ones, or those from callbacks.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    conditions: list[Any] = [_C.tenant == tenant, REGISTERED if registered else ~_C.registered]
    if enabled is not None:
        conditions.append(_C.enabled if enabled else ~_C.enabled)
    statement = SELECT.where(*conditions)
    return pages.read(connection, statement, webhook_endpoints, endpoint_of, cursor=cursor, limit=limit)


def anything_to_announce(connection: Connection) -> bool:
    """Whether operators must be notified of an endpoint. Locks nothing."""
    return bool(connection.execute(select(exists(select(_C.id).where(_C.announce_at <= NOW)))).scalar_one())


def announcements(connection: Connection, again_in: float, limit: int) -> list[Endpoint]:
    """Take disabled endpoints of which operators must be notified, of all tenants.

    Args:
        again_in: seconds until the next notification, if `announced` was not called by then.
    """
    due: ColumnElement[bool] = _C.announce_at <= NOW
    picked = select(_C.id, _C.tenant).where(due).limit(limit).with_for_update(skip_locked=True).cte("due")
    again = database_now(bindparam("again_in", again_in, Float))
    found = is_found(webhook_endpoints, select(picked.c.id, picked.c.tenant))
    statement = update_rows(webhook_endpoints).where(found).values(announce_at=again).returning(_C.id, _C.tenant)
    return of_all_tenants(connection, [Identity(*row) for row in connection.execute(statement)])


def announced(connection: Connection, told: Endpoint) -> None:
    """Note that operators were notified."""
    connection.execute(
        update_rows(webhook_endpoints)
        .where(_C.id == told.id, _C.tenant == told.tenant, _C.lock_version == told.lock_version)
        .values(announce_at=null())
    )


def of_all_tenants(connection: Connection, which: Collection[Identity]) -> list[Endpoint]:
    """These endpoints, as far as they exist. For deliverers, which serve every tenant."""
    if not which:
        return []
    return [endpoint_of(row) for row in connection.execute(SELECT.where(is_one_of(webhook_endpoints, which)))]


def _find(connection: Connection, endpoint_id: UUID, tenant: str) -> Endpoint | None:
    row = connection.execute(SELECT.where(_C.id == endpoint_id, _C.tenant == tenant)).one_or_none()
    return None if row is None else endpoint_of(row)


def _registered(connection: Connection, endpoint_id: UUID, tenant: str, verb: str) -> Endpoint:
    found = endpoint(connection, endpoint_id, tenant=tenant)
    if not found.registered:
        raise IllegalTransition(f"endpoint {endpoint_id} cannot be {verb}: it came with a callback, which says it all")
    return found


def _change(connection: Connection, before: Endpoint, **changes: Any) -> Endpoint:
    """Change an endpoint in the version that was read. Waits for a concurrent change, which then is a conflict."""
    changed = connection.execute(
        update_rows(webhook_endpoints)
        .where(_C.id == before.id, _C.tenant == before.tenant, _C.lock_version == before.lock_version)
        .values(**changes, lock_version=_C.lock_version + 1, updated_at=NOW)
        .returning(_C.id)
    ).one_or_none()
    if changed is None:
        raise Conflict(f"endpoint {before.id} was changed at this very moment: try again")
    return endpoint(connection, before.id, tenant=before.tenant)


def _fail_pending(connection: Connection, of: Endpoint, reason: str) -> None:
    d = webhook_deliveries.c
    connection.execute(
        update_rows(webhook_deliveries)
        .where(d.tenant == of.tenant, d.endpoint_id == of.id, d.status == DeliveryStatus.PENDING)
        .values(
            status=DeliveryStatus.FAILED,
            due_at=null(),
            reason=reason,
            finished_at=NOW,
            lock_version=d.lock_version + 1,
            updated_at=NOW,
        )
    )
