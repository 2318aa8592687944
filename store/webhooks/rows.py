"""An endpoint and a delivery, as they are read."""

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
    """Where webhooks go.

    Attributes:
        failing_for: seconds since it failed first after its last success; 0 where it did not.
        previous_secret: signs too, where it is not None.
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
    """One event on its way to one endpoint.

    Attributes:
        event_version: the lock_version that the execution ended with.
        tries: attempts since it was replayed.
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
        """Where it goes."""
        return Identity(self.endpoint_id, self.tenant)

    @property
    def execution(self) -> Identity:
        """What it tells of."""
        return Identity(self.execution_id, self.tenant)

    @property
    def event_id(self) -> str:
        """The id of the event, the same on every try and in every copy."""
        return f"{self.execution_id}.{self.event_version}"

    @property
    def host(self) -> str:
        """Where it goes: `host:port`."""
        return self.place.removeprefix(f"{self.tenant} ")


def delivery_of(row: Any) -> Delivery:
    """The delivery of a row with all its columns."""
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
    """The endpoint of a row of `store.webhooks.endpoints.SELECT`."""
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
    """What fails together, and is tried together: nobody's failures are another tenant's."""
    return f"{tenant} {host_port}"
