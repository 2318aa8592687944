"""Primary keys with tenants: two tenants may use the same id, and neither learns of the other.

Run it when no worker from before 0007 is left. Their statements name the primary keys on the id alone, and would fail;
this migration refuses to run while such workers are connected. Stop them first, or replace them by a version that also
runs on 0007.

On PostgreSQL, the indexes of 0007 become the primary keys, which changes the catalogue and reads no row; each table
commits by itself. If a statement fails, run the migration again; it skips what is already done. On SQLite, the tables
are created again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

from migrations.steps import LOCK_TIMEOUT, NO_LOCK_TIMEOUT, refuse_beside

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0007"

BEFORE = ("dspex", "dspex/2")
"""The application names of workers from before 0007."""


class Key(NamedTuple):
    """The primary key of a table, before and after this migration."""

    table: str
    columns: tuple[str, ...]

    def names(self, *, tenant: bool) -> str:
        return ", ".join((*self.columns, "tenant") if tenant else self.columns)


KEYS = [
    Key("executions", ("id",)),
    Key("callbacks", ("execution_id",)),
    Key("program_counters", ("program_id", "shard")),
    Key("program_durations", ("program_id", "shard", "bucket")),
    Key("programs", ("id",)),
    Key("signatures", ("id",)),
    Key("webhook_endpoints", ("id",)),
]
"""The busiest table is first, so that nothing is done yet if it is locked."""

DELIVERIES = "ix_webhook_deliveries_execution_id_event_version_endpoint_id"
OF_A_DELIVERY = ["execution_id", "event_version", "endpoint_id"]


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew(tenant=True)
        return
    if not context.is_offline_mode():
        refuse_beside(BEFORE, "could not write")
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for key in KEYS:
            if key.table == "signatures":
                _refer(tenant=True)
            if not _has_tenant(key):
                _swap(key, f"uq_{key.table}_key")
        op.drop_index(op.f(DELIVERIES), "webhook_deliveries", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    """Possible only if no two tenants have the same id."""
    if not context.is_offline_mode():
        for key in KEYS:
            _refuse_where_tenants_share(key.table, key.columns)
        _refuse_where_tenants_share("webhook_deliveries", tuple(OF_A_DELIVERY))
    if op.get_context().dialect.name == "sqlite":
        _make_anew(tenant=False)
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        op.execute("DO $$ BEGIN LOCK TABLE executions; END $$")  # fails if it is locked, before anything is done
        for key in KEYS:
            _index(f"uq_{key.table}_id", key.table, list(key.columns))
            _index(f"uq_{key.table}_key", key.table, [*key.columns, "tenant"])
        _index(DELIVERIES, "webhook_deliveries", OF_A_DELIVERY)
        for key in KEYS:
            if key.table == "signatures":
                _refer(tenant=False)
            if context.is_offline_mode() or _has_tenant(key):
                _swap(key, f"uq_{key.table}_id")


def _refuse_where_tenants_share(table: str, columns: tuple[str, ...]) -> None:
    names = ", ".join(columns)
    shared = f"SELECT 1 FROM {table} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"  # noqa: S608
    if op.get_bind().execute(sa.text(shared)).first() is not None:
        raise CommandError(f"{table}: two tenants have the same id, which revision {down_revision} does not know")


def _has_tenant(key: Key) -> bool:
    """Whether the primary key already includes the tenant."""
    if context.is_offline_mode():
        return False
    found = sa.inspect(op.get_bind()).get_pk_constraint(key.table)["constrained_columns"]
    return "tenant" in found


def _swap(key: Key, index: str) -> None:
    """Make an index the primary key of its table. It gets the name of the key."""
    name = f"pk_{key.table}"
    made = f"ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {index}"
    op.execute(f"ALTER TABLE {key.table} DROP CONSTRAINT IF EXISTS {name}, {made}")


def _refer(*, tenant: bool) -> None:
    """Make programs refer to the new key of signatures, so that nothing depends on the old one."""
    more, name = ", tenant" if tenant else "", "fk_programs_signature_id"
    op.execute(
        f"ALTER TABLE programs DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name} "
        f"FOREIGN KEY (signature_id{more}) REFERENCES signatures (id{more}) NOT VALID"
    )
    op.execute(f"ALTER TABLE programs VALIDATE CONSTRAINT {name}")


def _index(name: str, table: str, columns: list[str]) -> None:
    if not context.is_offline_mode():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # an earlier attempt may have left it
    op.execute(NO_LOCK_TIMEOUT)
    op.create_index(op.f(name), table, columns, unique=True, postgresql_concurrently=True)
    op.execute(LOCK_TIMEOUT)


def _make_anew(*, tenant: bool) -> None:
    """Create the tables again, by https://www.sqlite.org/lang_altertable.html#otheralter; `env.py` does the rest."""
    for key in KEYS:
        table = key.table
        indexes = _sql("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :table AND sql > ''", table)
        [made] = _sql("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table", table)
        made, keys = re.subn(
            rf"(CONSTRAINT pk_{table} PRIMARY KEY) \([^)]*\)", rf"\1 ({key.names(tenant=tenant)})", made
        )
        if table == "programs":
            more = ", tenant" if tenant else ""
            made, references = re.subn(
                r"FOREIGN KEY\s*\([^)]*\) REFERENCES (\"?)signatures\1 \([^)]*\)",
                f"FOREIGN KEY(signature_id{more}) REFERENCES signatures (id{more})",
                made,
            )
            keys += references - 1
        made, tables = re.subn(rf'^CREATE TABLE "?{table}"?', f"CREATE TABLE new_{table}", made)
        if (keys, tables) != (1, 1):
            raise CommandError(f"the table {table} is not as the migrations have made it")
        for statement in (
            made,
            f"INSERT INTO new_{table} SELECT * FROM {table}",  # noqa: S608
            f"DROP TABLE {table}",
            f"ALTER TABLE new_{table} RENAME TO {table}",
            *indexes,
        ):
            op.get_bind().exec_driver_sql(statement)
    old, new = (DELIVERIES, OF_A_DELIVERY), ("ix_webhook_deliveries_end", [*OF_A_DELIVERY, "tenant"])
    dropped, made_index = (old, new) if tenant else (new, old)
    op.drop_index(op.f(dropped[0]), "webhook_deliveries")
    op.create_index(op.f(made_index[0]), "webhook_deliveries", made_index[1], unique=True)


def _sql(query: str, table: str) -> list[str]:
    return list(op.get_bind().execute(sa.text(query), {"table": table}).scalars())
