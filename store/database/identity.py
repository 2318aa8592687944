"""The identity of a row: the id that its producer chose, and the tenant. Two tenants may use the same id."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Table, false, or_, tuple_

from dspex.ids import DEFAULT_TENANT


class Identity(NamedTuple):
    """The id of an entity, and its tenant."""

    id: UUID
    tenant: str = DEFAULT_TENANT


class Identified:
    """An entity with an id and a tenant."""

    id: UUID
    tenant: str

    @property
    def identity(self) -> Identity:
        """The identity of its row."""
        return Identity(self.id, self.tenant)


def lock_order(one: Identified) -> tuple[int, str]:
    """In this order every statement locks rows. By a number: Python's own code compares UUIDs."""
    return one.id.int, one.tenant


def is_one_of(table: Table, identities: Collection[Identity]) -> ColumnElement[bool]:
    """The condition that a row is one of these. Grouped by tenant, so that each group is one index look-up."""
    ids: dict[str, list[UUID]] = {}
    for identity in identities:
        ids.setdefault(identity.tenant, []).append(identity.id)
    c = table.c
    return or_(false(), *(c.id.in_(of_tenant) & (c.tenant == tenant) for tenant, of_tenant in ids.items()))


def is_found(table: Table, found: Any) -> ColumnElement[bool]:
    """The condition that a row is one that a query finds, by its `id` and `tenant`."""
    return tuple_(table.c.id, table.c.tenant).in_(found)
