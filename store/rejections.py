"""Rejected messages, with the reason and the body. Each is a dead letter until an operator replays or discards it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, CursorResult, select, tuple_, update

from dspex.contract.status import DeadLetterStatus
from dspex.errors import NotFound
from dspex.ids import DEFAULT_TENANT
from dspex.text import storable
from store.database import pages
from store.database.batch import upsert
from store.database.pages import DEFAULT_LIMIT, Page
from store.tables import MAX_NAME, NOW, rejected_messages

_NAMESPACE = UUID("5ad5f4e0-1c5c-5c0e-9e55-5b7b4f0b1a53")


@dataclass(frozen=True)
class Rejection:
    """A rejected message. `body` is cut to a limit; `body_size` is its full size in bytes.

    Attributes:
        keep: whether to store the body, which everybody who may see the tenant's dead letters can read.
    """

    queue: str
    error_code: str
    error_message: str
    body: bytes
    body_size: int
    message_id: str | None = None
    message_type: str | None = None
    tenant: str = DEFAULT_TENANT
    keep: bool = True

    @property
    def id(self) -> UUID:
        """The same for the same body on the same queue, so that a message that is delivered twice is recorded once."""
        queue = uuid.uuid5(_NAMESPACE, self.queue)
        space = queue if self.tenant == DEFAULT_TENANT else uuid.uuid5(queue, self.tenant)
        return uuid.uuid5(space, f"{self.body_size} {self.body.hex()}")


@dataclass(frozen=True)
class RecordedRejection:
    """A stored rejection. `deliveries` counts how often the same body came."""

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
    updated_at: datetime
    tenant: str
    status: DeadLetterStatus


_ALL = select(*(rejected_messages.c[field.name] for field in fields(RecordedRejection)))


def record(connection: Connection, rejection: Rejection) -> None:
    """Record a rejected message. Its texts may be anything, so they are cut, and unstorable characters are replaced.

    A message that is rejected again becomes dead again, with the newest reason.
    """
    c = rejected_messages.c
    reason = {"error_code": rejection.error_code, "error_message": storable(rejection.error_message)}
    connection.execute(
        upsert(connection)(rejected_messages)
        .values(
            id=rejection.id,
            queue=rejection.queue,
            **reason,
            message_id=_cut(rejection.message_id),
            message_type=_cut(rejection.message_type),
            body=rejection.body if rejection.keep else b"",
            body_size=rejection.body_size,
            deliveries=1,
            tenant=rejection.tenant,
            inserted_at=NOW,
            updated_at=NOW,
        )
        .on_conflict_do_update(
            index_elements=[c.id],
            set_=reason | {"deliveries": c.deliveries + 1, "status": DeadLetterStatus.DEAD, "updated_at": NOW},
        )
    )


def get(connection: Connection, rejection_id: UUID, *, tenant: str = DEFAULT_TENANT) -> RecordedRejection:
    """The rejected message with this id.

    Raises:
        NotFound: there is no such message.
    """
    found = find(connection, [rejection_id], tenant=tenant)
    if not found:
        raise NotFound(f"rejection_id: there is no rejected message {rejection_id}")
    return found[0]


def find(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> list[RecordedRejection]:
    """The rejected messages with these ids, as far as they exist, in no order."""
    c = rejected_messages.c
    return [_row(row) for row in connection.execute(_ALL.where(c.id.in_(ids), c.tenant == tenant))]


def page(
    connection: Connection,
    *,
    status: DeadLetterStatus | None = None,
    error_code: str | None = None,
    queue: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[RecordedRejection]:
    """Rejected messages that match all given conditions, newest first.

    Args:
        since, until: the message first came at or after `since`, and before `until`.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    statement = _ALL.where(*_conditions(status, error_code, queue, since, until, tenant))
    return pages.read(connection, statement, rejected_messages, _row, cursor=cursor, limit=limit)


def dead(
    connection: Connection,
    *,
    error_code: str | None = None,
    queue: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[UUID]:
    """The ids of rejected messages that are dead letters. The filters are those of `page`."""
    c = rejected_messages.c
    columns = [c.id, c.inserted_at]
    ids = select(*columns).where(*_conditions(DeadLetterStatus.DEAD, error_code, queue, since, until, tenant))
    return pages.read(connection, ids, rejected_messages, attrgetter("id"), cursor=cursor, limit=limit)


def replayed(connection: Connection, sent: Sequence[RecordedRejection]) -> int:
    """Mark messages as replayed, after they were sent. One that was rejected again meanwhile stays dead.

    Args:
        sent: the messages as they were read before sending.

    Returns:
        How many were marked.
    """
    if not sent:
        return 0
    c = rejected_messages.c
    as_read = tuple_(c.id, c.deliveries).in_([(message.id, message.deliveries) for message in sent])
    return _mark(connection, DeadLetterStatus.REPLAYED, as_read)


def discard(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> int:
    """Mark dead letters as discarded; the rows stay. Returns how many of them were dead."""
    c = rejected_messages.c
    return _mark(
        connection, DeadLetterStatus.DISCARDED, c.id.in_(ids), c.tenant == tenant, c.status == DeadLetterStatus.DEAD
    )


def _mark(connection: Connection, status: DeadLetterStatus, *conditions: ColumnElement[bool]) -> int:
    c = rejected_messages.c
    # In a fixed order, so that two concurrent calls for the same rows do not deadlock.
    held = select(c.id).where(*conditions).order_by(c.id).with_for_update()
    statement = update(rejected_messages).where(c.id.in_(held)).values(status=status, updated_at=NOW)
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def _conditions(
    status: DeadLetterStatus | None,
    error_code: str | None,
    queue: str | None,
    since: datetime | None,
    until: datetime | None,
    tenant: str,
) -> list[ColumnElement[bool]]:
    c = rejected_messages.c
    given = {c.status: status, c.error_code: error_code, c.queue: queue}
    conditions = [c.tenant == tenant, *(column == value for column, value in given.items() if value is not None)]
    if since is not None:
        conditions.append(c.inserted_at >= since)
    if until is not None:
        conditions.append(c.inserted_at < until)
    return conditions


def _row(row: Any) -> RecordedRejection:
    return RecordedRejection(**row._asdict() | {"status": DeadLetterStatus(row.status)})


def _cut(name: str | None) -> str | None:
    return None if name is None else storable(name)[:MAX_NAME]
