"""The privileges of our role on PostgreSQL, checked once when a worker starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from store.tables import metadata

NEEDED: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""Needed on every table; on Alembic's table of the revision, only `SELECT`."""
VERSION: Final = "alembic_version"


@dataclass(frozen=True)
class TableRights:
    """The missing privileges of a role on a table, and whether row-level security applies to it.

    Attributes:
        missing: privileges that the role lacks.
        held: whether the table's policies apply to the role. To an owner they apply only if they are forced.
    """

    table: str
    missing: tuple[str, ...]
    held: bool


@dataclass(frozen=True)
class Rights:
    """The privileges of a role.

    Attributes:
        schema: the schema of its tables; None if it may use none on its search path.
        bypasses: whether it is a superuser or has BYPASSRLS, to which no policy applies.
        tables: the tables that exist.
    """

    role: str
    schema: str | None
    bypasses: bool
    tables: Sequence[TableRights]

    @property
    def grants(self) -> list[str]:
        """The statements that grant the missing privileges."""
        missing = [
            f"GRANT {', '.join(table.missing)} ON {table.table} TO {self.role};"
            for table in self.tables
            if table.missing
        ]
        return missing if self.schema else [f"GRANT USAGE ON SCHEMA public TO {self.role};"]

    @property
    def unheld(self) -> list[str]:
        """The tables with tenants whose policies do not apply to the role."""
        tenants = {name for name, table in metadata.tables.items() if "tenant" in table.columns}
        return [table.table for table in self.tables if table.table in tenants and not table.held]


_ASK: Final = text("""
    SELECT quote_ident(r.rolname) AS role, current_schema() AS schema, r.rolsuper OR r.rolbypassrls AS bypasses,
           c.relname AS name,
           c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')) AS held,
           ARRAY(
               SELECT p FROM unnest(CAST(:needed AS text[])) p
               WHERE NOT has_table_privilege(c.oid, p) AND (p = 'SELECT' OR c.relname <> :version)
           ) AS missing
    FROM pg_roles r LEFT JOIN pg_class c ON c.oid IN (SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) t)
    WHERE r.rolname = current_user ORDER BY c.relname
""")


def rights(connection: Connection) -> Rights:
    """Read the privileges of this session's role."""
    asked = {"version": VERSION, "needed": list(NEEDED), "tables": [VERSION, *metadata.tables]}
    rows = connection.execute(_ASK, asked).all()
    tables = [TableRights(row.name, tuple(row.missing), row.held) for row in rows if row.name is not None]
    return Rights(rows[0].role, rows[0].schema, rows[0].bypasses, tables)
