"""Idempotency keys: a tenant's key stands for one execution. The first request with a key takes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, String, Uuid, delete, select, tuple_

from dspex.ids import DEFAULT_TENANT
from store.database.batch import encode, records, upsert
from store.tables import NOW, idempotency_keys


class Key(NamedTuple):
    """A tenant's idempotency key."""

    tenant: str
    key: str


class Holder(NamedTuple):
    """The execution that has a key, and the digest of its request."""

    execution_id: UUID
    request_digest: str


_KEY: dict[str, Any] = {"tenant": String(), "key": String(), "execution_id": Uuid(), "request_digest": String()}


def take(connection: Connection, wanted: Sequence[tuple[Key, Holder]]) -> dict[Key, Holder]:
    """Take each free key, and return the holders. Waits for transactions that are taking the same keys.

    Args:
        wanted: the keys, without duplicates.
    """
    statement = _take(connection.dialect.name, upsert(connection))
    rows = [key._asdict() | holder._asdict() for key, holder in wanted]
    found = connection.execute(statement, encode(rows))
    return {Key(row.tenant, row.key): Holder(row.execution_id, row.request_digest) for row in found}


def find(connection: Connection, key: str, *, tenant: str = DEFAULT_TENANT) -> UUID | None:
    """The execution that has a key, or None."""
    c = idempotency_keys.c
    found = select(c.execution_id).where(c.tenant == tenant, c.key == key)
    return connection.execute(found).scalar_one_or_none()


def give_back(connection: Connection, keys: Collection[Key]) -> None:
    """Free keys for which no execution was created."""
    c = idempotency_keys.c
    connection.execute(delete(idempotency_keys).where(tuple_(c.tenant, c.key).in_(keys)))


@lru_cache(maxsize=2)
def _take(dialect: str, insert: Any) -> Any:
    c, r = idempotency_keys.c, records(dialect, _KEY)
    # In a fixed order, so that two workers with the same keys do not deadlock.
    rows = select(*(r.c[name] for name in _KEY), NOW).where(r.c.key.is_not(None)).order_by(r.c.tenant, r.c.key)
    statement = insert(idempotency_keys).from_select([*_KEY, "inserted_at"], rows)
    # The update changes nothing, but only updated rows are returned.
    return statement.on_conflict_do_update(index_elements=[c.tenant, c.key], set_={"key": c.key}).returning(
        c.tenant, c.key, c.execution_id, c.request_digest
    )
