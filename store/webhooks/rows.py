"""Endpoints and deliveries as read from their rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from dspex.contract.callback import Callback, CallbackEvent
from dspex.contract.status import DeliveryStatus
from store.database.identity import Identified, Identity


@dataclass(frozen=True)
class Endpoint(Identified):
    """An endpoint of webhooks.

    Attributes:
        failing_for: seconds since the first failure after the last success; 0 if there was none.
        previous_secret: also signs, if not None.
    """

    id: UUID
    tenant: str
    callback: Callback
    registered: bool
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    failing_since: datetime | None
    failing_for: float
    previous_secret: str | None
    previous_until: datetime | None
    lock_version: int
    inserted_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Delivery:
    """The delivery of one event to one endpoint.

    Attributes:
        event_version: the lock_version with which the execution ended.
        tries: attempts since the last replay.
    """

    id: UUID
    tenant: str
    endpoint_id: UUID
    execution_id: UUID
    event_version: int
    event: CallbackEvent
    place: str
    status: DeliveryStatus
    due_at: datetime | None
    attempts: int
    tries: int
    reason: str | None
    lock_version: int
    inserted_at: datetime
    finished_at: datetime | None

    @property
    def endpoint(self) -> Identity:
        """The endpoint that it goes to."""
        return Identity(self.endpoint_id, self.tenant)

    @property
    def execution(self) -> Identity:
        """The execution whose end it reports."""
        return Identity(self.execution_id, self.tenant)

    @property
    def event_id(self) -> str:
        """The id of the event, the same in every attempt and for every endpoint."""
        return f"{self.execution_id}.{self.event_version}"

    @property
    def host(self) -> str:
        """The `host:port` that it goes to."""
        return self.place.removeprefix(f"{self.tenant} ")


def delivery_of(row: Any) -> Delivery:
    """Read a delivery from a row with all columns."""
    return Delivery(
        id=row.id,
        tenant=row.tenant,
        endpoint_id=row.endpoint_id,
        execution_id=row.execution_id,
        event_version=row.event_version,
        event=row.event,
        place=row.place,
        status=DeliveryStatus(row.status),
        due_at=row.due_at,
        attempts=row.attempts,
        tries=row.tries,
        reason=row.reason,
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        finished_at=row.finished_at,
    )


def endpoint_of(row: Any) -> Endpoint:
    """Read an endpoint from a row of `store.webhooks.endpoints.SELECT`."""
    return Endpoint(
        id=row.id,
        tenant=row.tenant,
        callback=Callback(url=row.url, secret=row.secret, events=row.events, headers=row.headers, thin=row.thin),
        registered=row.registered,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        disabled_at=row.disabled_at,
        failing_since=row.failing_since,
        failing_for=max(0.0, -(row.failing_left or 0.0)),
        previous_secret=row.previous_secret if (row.previous_left or 0.0) > 0 else None,
        previous_until=row.previous_until,
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )


def place_of(tenant: str, host_port: str) -> str:
    """The place of an endpoint: deliveries with the same tenant and `host:port` fail, and take turns, together."""
    return f"{tenant} {host_port}"
