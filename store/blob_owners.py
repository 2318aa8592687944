"""The marks of this database in blob stores: who may remove what nothing refers to."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, select

from store.database.batch import upsert
from store.tables import NOW, blob_owners


def marks(connection: Connection) -> set[UUID]:
    """The marks of this database."""
    return set(connection.execute(select(blob_owners.c.id)).scalars())


def add(connection: Connection, ids: Collection[UUID]) -> None:
    """Make these marks of this database."""
    rows = [{"id": mark, "inserted_at": NOW} for mark in sorted(ids)]
    if rows:
        connection.execute(upsert(connection)(blob_owners).values(rows).on_conflict_do_nothing())
