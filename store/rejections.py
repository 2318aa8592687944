"""Rejected messages: what could not be taken, with its reason and its body."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select

from store.batch import upsert
from store.tables import DEFAULT_TENANT, MAX_NAME, NOW, rejected_messages
from store.types import storable

_NAMESPACE = UUID("5ad5f4e0-1c5c-5c0e-9e55-5b7b4f0b1a53")


@dataclass(frozen=True)
class Rejection:
    """A message that was rejected. `body` is cut at the cap, `body_size` is the whole size in bytes."""

    queue: str
    error_code: str
    error_message: str
    body: bytes
    body_size: int
    message_id: str | None = None
    message_type: str | None = None
    tenant: str = DEFAULT_TENANT

    @property
    def id(self) -> UUID:
        """The same for the same body on the same queue: a message that is delivered twice is rejected once."""
        queue = uuid.uuid5(_NAMESPACE, self.queue)
        space = queue if self.tenant == DEFAULT_TENANT else uuid.uuid5(queue, self.tenant)
        return uuid.uuid5(space, f"{self.body_size} {self.body.hex()}")


@dataclass(frozen=True)
class RecordedRejection:
    """A rejection as it is kept; `deliveries` counts how often the same body came."""

    id: UUID
    queue: str
    error_code: str
    error_message: str
    message_id: str | None
    message_type: str | None
    body: bytes
    body_size: int
    deliveries: int
    inserted_at: datetime
    tenant: str


def record(connection: Connection, rejection: Rejection) -> None:
    """Keep a rejected message. It came from anywhere: texts are cut to size, and what cannot be stored is replaced."""
    c = rejected_messages.c
    connection.execute(
        upsert(connection)(rejected_messages)
        .values(
            id=rejection.id,
            queue=rejection.queue,
            error_code=rejection.error_code,
            error_message=storable(rejection.error_message),
            message_id=_cut(rejection.message_id),
            message_type=_cut(rejection.message_type),
            body=rejection.body,
            body_size=rejection.body_size,
            deliveries=1,
            tenant=rejection.tenant,
            inserted_at=NOW,
            updated_at=NOW,
        )
        .on_conflict_do_update(index_elements=[c.id], set_={"deliveries": c.deliveries + 1, "updated_at": NOW})
    )


def recent(connection: Connection, limit: int = 50, *, tenant: str = DEFAULT_TENANT) -> list[RecordedRejection]:
    """The newest rejected messages, newest first."""
    c = rejected_messages.c
    columns = [c[field.name] for field in fields(RecordedRejection)]
    found = connection.execute(
        select(*columns).where(c.tenant == tenant).order_by(c.inserted_at.desc(), c.id).limit(limit)
    )
    return [RecordedRejection(*row) for row in found]


def find(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> list[RecordedRejection]:
    """The rejected messages of these ids that exist, in no order."""
    c = rejected_messages.c
    columns = [c[field.name] for field in fields(RecordedRejection)]
    found = connection.execute(select(*columns).where(c.id.in_(ids), c.tenant == tenant))
    return [RecordedRejection(*row) for row in found]


def _cut(name: str | None) -> str | None:
    return None if name is None else storable(name)[:MAX_NAME]
