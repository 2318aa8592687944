"""Tenants: every row belongs to one, and every query names its tenant.

On PostgreSQL, row-level security is a second barrier: a query that does not name its tenant sees only rows of the
session's tenant, or none if the session has no tenant. It does not apply to superusers and roles with BYPASSRLS, so
services should connect as another role. SQLite has no such barrier.
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
"""Stands for all tenants. For workers, which serve every tenant."""

SETTING = "dspex.tenant"
"""The setting of a PostgreSQL session that the policies compare with."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCOPE = select(func.set_config(SETTING, bindparam("tenant"), bindparam("local", True)))


def checked(tenant: str) -> str:
    """Check and return a tenant's name: at most 64 letters, digits, `.`, `_` and `-`. Accepts `ALL`, too.

    Raises:
        InvalidValues: the name is invalid.
    """
    if tenant == ALL or _NAME.fullmatch(tenant):
        return tenant
    raise InvalidValues([Problem("tenant", "must be 1 to 64 letters, digits, '.', '_' or '-', the first no sign")])


def owners(connection: Connection, ids: Collection[UUID], besides: str) -> dict[UUID, str]:
    """For each id that only other tenants use: one of them. The connection must see all tenants."""
    others, own = dict[UUID, str](), set[UUID]()
    for table in (signatures, programs, executions, rejected_messages, webhook_endpoints, webhook_deliveries):
        for id_, tenant in connection.execute(select(table.c.id, table.c.tenant).where(table.c.id.in_(ids))):
            if tenant == besides:
                own.add(id_)
            else:
                others[id_] = tenant
    return {id_: tenant for id_, tenant in others.items() if id_ not in own}


def scope(connection: Connection, tenant: str) -> None:
    """Until the transaction ends, limit it to the rows of one tenant. Does nothing on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SCOPE, {"tenant": checked(tenant)})
