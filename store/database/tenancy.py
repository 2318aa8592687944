"""Tenants: every row belongs to one, and every query names the one it is for.

On PostgreSQL row-level security backs this up: a query that forgets to name its tenant sees the rows of the
session's tenant alone, and none where the session has none. Superusers, and roles with BYPASSRLS, are not held by it:
let services connect as a role that is neither. On SQLite there are only the queries.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select

from dspex.errors import InvalidValues, Problem
from store.tables import (
    executions,
    programs,
    rejected_messages,
    signatures,
    webhook_deliveries,
    webhook_endpoints,
)

__all__ = ["ALL", "SETTING", "checked", "owners", "scope"]

ALL = "*"
"""Instead of a tenant: the rows of all. For workers, which run what every tenant has asked for."""

SETTING = "dspex.tenant"
"""The setting of a PostgreSQL session that the policies compare with."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCOPE = select(func.set_config(SETTING, bindparam("tenant"), bindparam("local", True)))


def checked(tenant: str) -> str:
    """The name, if it can be a tenant's: letters, digits, `.`, `_` and `-`, at most 64. `ALL` passes too.

    Raises:
        InvalidValues: it cannot.
    """
    if tenant == ALL or _NAME.fullmatch(tenant):
        return tenant
    raise InvalidValues([Problem("tenant", "must be 1 to 64 letters, digits, '.', '_' or '-', the first no sign")])


def owners(connection: Connection, ids: Collection[UUID], besides: str) -> dict[UUID, str]:
    """A tenant for each of these ids that is another's, and not one's own; for a connection in the scope of `ALL`."""
    others, own = dict[UUID, str](), set[UUID]()
    for table in (signatures, programs, executions, rejected_messages, webhook_endpoints, webhook_deliveries):
        for id_, tenant in connection.execute(select(table.c.id, table.c.tenant).where(table.c.id.in_(ids))):
            if tenant == besides:
                own.add(id_)
            else:
                others[id_] = tenant
    return {id_: tenant for id_, tenant in others.items() if id_ not in own}


def scope(connection: Connection, tenant: str) -> None:
    """Until the transaction ends, let it see and write the rows of one tenant alone. Nothing on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SCOPE, {"tenant": checked(tenant)})
