"""Inserts a delivery for each endpoint that wants the end of an execution, in the transaction that ends it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Connection,
    Float,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    false,
    null,
    or_,
    select,
)

from dspex.contract.callback import Callback, CallbackEvent, parse_url
from dspex.contract.status import DeliveryStatus
from dspex.ids import canonical_json, uuid7
from store.column_types import Json, database_now
from store.database.batch import encode, records, upsert
from store.database.identity import Identity, is_one_of
from store.tables import NOW, REGISTERED, webhook_deliveries, webhook_endpoints
from store.webhooks.endpoints import SELECT, columns_of
from store.webhooks.rows import Endpoint, endpoint_of, place_of

_NAMESPACE = UUID("5c6e1f8e-5d0c-5f4e-8b1b-6f8f6a0e2d11")

DISABLED = "the endpoint is disabled"


@dataclass(frozen=True)
class End:
    """An execution that has just ended.

    Attributes:
        version: the lock_version with which it ended.
        callback: the callback of the execution or its program.
        registered: whether its tenant has, or may have, registered endpoints.
    """

    execution_id: UUID
    tenant: str
    version: int
    event: CallbackEvent
    callback: Callback | None
    registered: bool


def end_of(row: Any, *, registered: bool) -> End:
    """Read the end of an execution from its row. Its own callback takes precedence over its program's."""
    kept = row.callback or row.program_callback
    callback = Callback(**kept) if kept else None
    return End(row.id, row.tenant, row.lock_version, cast("CallbackEvent", str(row.status)), callback, registered)


def endpoint_id_of(tenant: str, callback: Callback) -> UUID:
    """The id of the endpoint for a callback."""
    return uuid.uuid5(uuid.uuid5(_NAMESPACE, tenant), canonical_json(columns_of(callback)).decode())


def _own(end: End) -> Identity | None:
    """The endpoint for the callback of an end, or None."""
    return None if end.callback is None else Identity(endpoint_id_of(end.tenant, end.callback), end.tenant)


def fan_out(connection: Connection, ends: Sequence[End], due_in: float) -> None:
    """Insert the deliveries of ends. For a disabled endpoint, a delivery is inserted as failed, and can be replayed.

    Args:
        due_in: seconds until the deliveries are due.
    """
    own = {endpoint: end for end in ends if (endpoint := _own(end)) is not None}
    found = _endpoints(connection, own, ends)
    new = {endpoint: end for endpoint, end in own.items() if endpoint not in found}
    if new:
        _keep(connection, new)
        found |= _endpoints(connection, new, ())
    rows = [_row(end, endpoint) for end in ends for endpoint in _wanting(end, found)]
    if rows:
        statement = _insert(connection.dialect.name, upsert(connection))
        connection.execute(statement, encode(rows) | {"due_in": due_in})


def _endpoints(connection: Connection, own: Collection[Identity], ends: Sequence[End]) -> dict[Identity, Endpoint]:
    c = webhook_endpoints.c
    listening = {end.tenant for end in ends if end.registered}
    of_tenants = c.tenant.in_(listening) & REGISTERED if listening else false()
    rows = connection.execute(SELECT.where(or_(is_one_of(webhook_endpoints, own), of_tenants)))
    return {endpoint.identity: endpoint for endpoint in map(endpoint_of, rows)}


def _keep(connection: Connection, new: dict[Identity, End]) -> None:
    """Insert the endpoints from callbacks, in a fixed order, so that concurrent transactions do not deadlock."""
    rows = [
        endpoint._asdict() | columns_of(callback)
        for endpoint in sorted(new)
        if (callback := new[endpoint].callback) is not None
    ]
    connection.execute(_keep_statement(connection.dialect.name, upsert(connection)), encode(rows))


def _wanting(end: End, endpoints: dict[Identity, Endpoint]) -> list[Endpoint]:
    """The endpoints that want an end, without duplicates."""
    own = _own(end)
    return [
        endpoint
        for identity, endpoint in sorted(endpoints.items())
        if endpoint.tenant == end.tenant
        and (identity == own or (end.registered and endpoint.registered))
        and end.event in endpoint.callback.events
    ]


def _row(end: End, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "tenant": end.tenant,
        "endpoint_id": endpoint.id,
        "execution_id": end.execution_id,
        "event_version": end.version,
        "event": end.event,
        "place": place_of(end.tenant, parse_url(endpoint.callback.url).host_port),
        "status": DeliveryStatus.PENDING if endpoint.enabled else DeliveryStatus.FAILED,
        "reason": None if endpoint.enabled else DISABLED,
    }


_ROW: dict[str, Any] = {
    "id": Uuid(),
    "tenant": String(),
    "endpoint_id": Uuid(),
    "execution_id": Uuid(),
    "event_version": Integer(),
    "event": String(),
    "place": String(),
    "status": String(),
    "reason": Text(),
}
_ENDPOINT: dict[str, Any] = {
    "id": Uuid(),
    "tenant": String(),
    "url": Text(),
    "secret": String(),
    "events": Json,
    "headers": Json,
    "thin": Boolean(),
}


@lru_cache(maxsize=2)
def _insert(dialect: str, insert: Any) -> Any:
    r = records(dialect, _ROW)
    pending = r.c.status == DeliveryStatus.PENDING
    values: dict[str, Any] = {name: r.c[name] for name in _ROW} | {
        "due_at": case((pending, database_now(bindparam("due_in", type_=Float))), else_=null()),
        "finished_at": case((pending, null()), else_=NOW),
        "inserted_at": NOW,
        "updated_at": NOW,
    }
    rows = select(*values.values()).where(r.c.id.is_not(None))
    return insert(webhook_deliveries).from_select(list(values), rows).on_conflict_do_nothing()


@lru_cache(maxsize=2)
def _keep_statement(dialect: str, insert: Any) -> Any:
    r = records(dialect, _ENDPOINT)
    values: dict[str, Any] = {name: r.c[name] for name in _ENDPOINT} | {
        "registered": false(),
        "inserted_at": NOW,
        "updated_at": NOW,
    }
    rows = select(*values.values()).where(r.c.id.is_not(None)).order_by(r.c.id, r.c.tenant)
    statement = insert(webhook_endpoints).from_select(list(values), rows)
    return statement.on_conflict_do_nothing()
