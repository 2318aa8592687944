"""Tenants, cancelled executions, timelines, and columns for lists and statistics.

Workers of the previous version keep working during and after it. They do not know tenants, so every new column that
must have a value has a default. They cannot answer a repeated message for a cancelled execution, so cancel nothing
until they are gone. The rows that they write lack a timeline, an error code and tokens; migration 0003 fills these in.

On PostgreSQL, no table is locked for longer than a change of the catalogue takes: each statement commits by itself,
indexes are built concurrently, and the constraint is validated separately. If a statement fails, run the migration
again; it skips what is already done.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql

from migrations.steps import LOCK_TIMEOUT, NO_LOCK_TIMEOUT, ddl, drop_if_broken

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0001"

LOSSES = {
    "executions that were cancelled, which become failed ones": "executions WHERE status = 'cancelled'",
    "timelines of executions": "executions WHERE CAST(timeline AS TEXT) <> '[]'",
}
"""The data that a downgrade loses, by the table, and condition, that selects it."""

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)

TABLES = ("signatures", "programs", "executions", "program_counters", "rejected_messages")
OPEN = "status IN ('pending', 'running')"
STATUSES = ("pending", "running", "completed", "failed")
MEASURED = ["status", "duration_ms", "input_tokens", "output_tokens", "cost"]


class Index(NamedTuple):
    name: str
    table: str
    columns: list[str]
    unique: bool = False
    where: str | None = None
    include: list[str] | None = None


NEW = [
    Index("ix_signatures_tenant_module_version", "signatures", ["tenant", "module", "version"], unique=True),
    Index("ix_signatures_tenant_inserted_at", "signatures", ["tenant", "inserted_at"]),
    Index("ix_signatures_tenant_name_inserted_at", "signatures", ["tenant", "name", "inserted_at"]),
    Index("ix_signatures_tenant_status_inserted_at", "signatures", ["tenant", "status", "inserted_at"]),
    Index("ix_signatures_tenant_digest", "signatures", ["tenant", "digest"]),
    Index("ix_programs_tenant_inserted_at", "programs", ["tenant", "inserted_at"]),
    Index("ix_programs_tenant_name_inserted_at", "programs", ["tenant", "name", "inserted_at"]),
    Index("ix_programs_tenant_status_inserted_at", "programs", ["tenant", "status", "inserted_at"]),
    Index("ix_executions_tenant_inserted_at", "executions", ["tenant", "inserted_at"]),
    Index("ix_executions_program", "executions", ["tenant", "program_id", "inserted_at"], include=MEASURED),
    Index(
        "ix_executions_unsuccessful",
        "executions",
        ["tenant", "inserted_at", "status", "error_code", "program_id"],
        where="status IN ('failed', 'cancelled')",
    ),
    Index("ix_rejected_messages_tenant_inserted_at", "rejected_messages", ["tenant", "inserted_at"]),
]
OLD = [
    Index("ix_signatures_name", "signatures", ["name"]),
    Index("ix_signatures_module_version", "signatures", ["module", "version"], unique=True),
    Index("ix_programs_name", "programs", ["name"]),
    Index("ix_executions_program_id_inserted_at", "executions", ["program_id", "inserted_at"]),
    Index("ix_rejected_messages_inserted_at", "rejected_messages", ["inserted_at"]),
]
KEPT = [
    Index("ix_programs_signature_id", "programs", ["signature_id"]),
    Index("ix_executions_open", "executions", ["worker"], where=OPEN),
]


def columns() -> dict[str, list[sa.Column[Any]]]:
    """The new columns of each table, in the order in which the tables are changed."""
    added: dict[str, list[sa.Column[Any]]] = {
        table: [sa.Column("tenant", sa.String(64), server_default="default", nullable=False)] for table in TABLES
    }
    added["executions"] += [
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("timeline", JSON, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cost", sa.Float()),
    ]
    added["program_counters"] += [sa.Column("cancelled", sa.BigInteger(), server_default=sa.text("0"), nullable=False)]
    return added


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
        return
    with _each_by_itself():
        op.execute(LOCK_TIMEOUT)
        for table, added in columns().items():
            changes = [f"ADD COLUMN IF NOT EXISTS {ddl(column)}" for column in added]
            if table == "executions":
                changes += ["DROP CONSTRAINT IF EXISTS ck_executions_status", f"ADD {_check('cancelled')} NOT VALID"]
            op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
        _create_durations()
        op.execute("ALTER TABLE executions VALIDATE CONSTRAINT ck_executions_status")
        _index_concurrently(NEW, OLD)
    op.execute("ALTER TABLE program_counters ALTER COLUMN last_executed_at DROP NOT NULL")


def downgrade() -> None:
    """Cancelled executions become failed ones, with an error that says so."""
    online = not context.is_offline_mode()
    for table in TABLES if online else ():
        others = op.get_bind().execute(sa.text(f"SELECT 1 FROM {table} WHERE tenant <> 'default' LIMIT 1"))  # noqa: S608
        if others.first() is not None:
            raise CommandError(f"{table} has rows of other tenants than 'default', which revision 0001 does not know")
    if op.get_context().dialect.name == "sqlite":
        _downgrade_sqlite()
        return
    with _each_by_itself():
        _cancelled_are_failed()
        op.execute(f"ALTER TABLE executions DROP CONSTRAINT IF EXISTS ck_executions_status, ADD {_check()} NOT VALID")
        op.execute("ALTER TABLE executions VALIDATE CONSTRAINT ck_executions_status")
        _index_concurrently(OLD, NEW)
        op.execute("DROP TABLE IF EXISTS program_durations")
        for table, added in columns().items():
            changes = [f"DROP COLUMN IF EXISTS {column.name}" for column in added]
            if table == "program_counters":
                changes.append("ALTER COLUMN last_executed_at SET NOT NULL")
            op.execute(f"ALTER TABLE {table} {', '.join(changes)}")


def _each_by_itself() -> AbstractContextManager[None]:
    return op.get_context().autocommit_block()


def _check(*more: str) -> str:
    listed = ", ".join(f"'{status}'" for status in (*STATUSES, *more))
    return f"CONSTRAINT ck_executions_status CHECK (status IN ({listed}))"


def _create_durations() -> None:
    op.create_table(
        "program_durations",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default="default", nullable=False),
        sa.PrimaryKeyConstraint("program_id", "shard", "bucket", name=op.f("pk_program_durations")),
        postgresql_with={"fillfactor": "70"},
        if_not_exists=True,
    )


def _index_concurrently(made: list[Index], dropped: list[Index]) -> None:
    op.execute(NO_LOCK_TIMEOUT)
    for index in made:
        drop_if_broken(index.name, index.table)
        _create(index, concurrently=True)
    for index in dropped:
        op.drop_index(op.f(index.name), index.table, postgresql_concurrently=True, if_exists=True)
    op.execute(LOCK_TIMEOUT)


def _create(index: Index, *, concurrently: bool = False) -> None:
    where = None if index.where is None else sa.text(index.where)
    op.create_index(
        op.f(index.name),
        index.table,
        index.columns,
        unique=index.unique,
        if_not_exists=concurrently,
        postgresql_concurrently=concurrently,
        postgresql_where=where,
        postgresql_include=index.include,
        sqlite_where=where,
    )


def _cancelled_are_failed() -> None:
    error = '{"code": "cancelled", "message": "it was cancelled", "problems": []}'
    op.execute(f"UPDATE executions SET status = 'failed', error = '{error}' WHERE status = 'cancelled'")  # noqa: S608
    op.execute("UPDATE program_counters SET failed = failed + cancelled, cancelled = 0 WHERE cancelled > 0")
    op.execute("UPDATE program_counters SET last_executed_at = CURRENT_TIMESTAMP WHERE last_executed_at IS NULL")


def _upgrade_sqlite() -> None:
    _drop(OLD + KEPT)
    for table, added in columns().items():
        with op.batch_alter_table(table, recreate="always") as batch:
            for column in added:
                batch.add_column(column)
            if table == "executions":
                batch.drop_constraint(op.f("ck_executions_status"), type_="check")
                batch.create_check_constraint(op.f("ck_executions_status"), _condition("cancelled"))
            if table == "program_counters":
                batch.alter_column("last_executed_at", existing_type=MOMENT, nullable=True)
    _create_durations()
    for index in NEW + KEPT:
        _create(index)


def _downgrade_sqlite() -> None:
    _cancelled_are_failed()
    _drop(NEW + KEPT)
    op.drop_table("program_durations")
    for table, added in columns().items():
        with op.batch_alter_table(table, recreate="always") as batch:
            for column in added:
                batch.drop_column(column.name)
            if table == "executions":
                batch.drop_constraint(op.f("ck_executions_status"), type_="check")
                batch.create_check_constraint(op.f("ck_executions_status"), _condition())
            if table == "program_counters":
                batch.alter_column("last_executed_at", existing_type=MOMENT, nullable=False)
    for index in OLD + KEPT:
        _create(index)


def _drop(indexes: list[Index]) -> None:
    for index in indexes:
        op.drop_index(op.f(index.name), index.table)


def _condition(*more: str) -> str:
    return f"status IN ({', '.join(repr(status) for status in (*STATUSES, *more))})"
