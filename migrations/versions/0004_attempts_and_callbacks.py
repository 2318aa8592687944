"""Delayed attempts, schedules and deadlines, retry policies, unsent events, idempotency keys, dead letters.

Workers of the previous version keep working during and after it: every new column may be NULL or has a default, and
rows that they write without `due_at` are found by their lease. They reject messages with fields that they do not know,
so send the new fields when these workers are gone.

On PostgreSQL, no table is locked for longer than a change of the catalogue takes: each statement commits by itself, and
indexes are built concurrently. If a statement fails, run the migration again; it skips what is already done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.steps import LOCK_TIMEOUT, NO_LOCK_TIMEOUT, ddl, drop_if_broken

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0003"

LOSSES = {
    "idempotency keys: a request that comes again runs again": "idempotency_keys",
    "events that are not sent yet, and will not be": "callbacks",
    "executions that wait for their time, and keep it, but no longer their not_before or deadline": (
        "executions WHERE status = 'pending' AND (not_before IS NOT NULL OR deadline IS NOT NULL)"
    ),
    "dead letters that were replayed or discarded, and are listed again": "rejected_messages WHERE status <> 'dead'",
    "failed executions that were discarded, and are listed again": "executions WHERE discarded",
    "retry policies of programs": "programs WHERE policy IS NOT NULL AND CAST(policy AS TEXT) <> 'null'",
}
"""The data that a downgrade loses, by the table, and condition, that selects it."""

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)

STATUS_CHECK = "CONSTRAINT ck_rejected_messages_status CHECK (status IN ('dead', 'replayed', 'discarded'))"

TABLES = ("callbacks", "idempotency_keys")
POLICY = "tenant = current_setting('dspex.tenant', true) OR current_setting('dspex.tenant', true) = '*'"

NEW = (
    ("ix_executions_running", ["worker"], "status = 'running'"),
    ("ix_executions_pending", ["due_at"], "status = 'pending'"),
)
OLD = (("ix_executions_open", ["worker"], "status IN ('pending', 'running')"),)


def columns() -> dict[str, list[sa.Column[Any]]]:
    """The new columns of each table. The busiest table is first, so that nothing is done yet if it is locked."""
    return {
        "executions": [
            sa.Column("due_at", MOMENT),
            sa.Column("not_before", MOMENT),
            sa.Column("deadline", MOMENT),
            sa.Column("policy", JSON),
            sa.Column("reply_to", sa.Text()),
            sa.Column("correlation_id", sa.Text()),
            sa.Column("carried", JSON),
            sa.Column("lost", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
            sa.Column("discarded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        ],
        "programs": [sa.Column("policy", JSON)],
        "rejected_messages": [sa.Column("status", sa.String(16), server_default=sa.text("'dead'"), nullable=False)],
    }


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for table, added in columns().items():
            changes = [f"ADD COLUMN IF NOT EXISTS {ddl(column)}" for column in added]
            if table == "rejected_messages":
                changes += ["DROP CONSTRAINT IF EXISTS ck_rejected_messages_status", f"ADD {STATUS_CHECK} NOT VALID"]
            op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
        op.execute("ALTER TABLE rejected_messages VALIDATE CONSTRAINT ck_rejected_messages_status")
        _index_concurrently(NEW, OLD)
    _create_tables()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    """What waits is due by its lease again; the event outbox and the idempotency keys are lost."""
    waiting = "UPDATE executions SET lease_expires_at = due_at WHERE status = 'pending' AND lease_expires_at IS NULL"
    if op.get_context().dialect.name == "sqlite":
        op.execute(waiting)
        _downgrade_sqlite()
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        op.execute(waiting)
        # Begins with the statement that may fail for a lock. The index of a column is dropped with the column.
        for table, added in columns().items():
            op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN IF EXISTS {column.name}' for column in added)}")
        for table in TABLES:
            op.execute(f"DROP TABLE IF EXISTS {table}")
        _index_concurrently(OLD, NEW)


def _create_tables() -> None:
    op.create_table(
        "callbacks",
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.Column("lock_version", sa.Integer(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_callbacks")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_idempotency_keys")),
    )


Indexes = Sequence[tuple[str, list[str], str]]


def _index_concurrently(made: Indexes, dropped: Indexes) -> None:
    op.execute(NO_LOCK_TIMEOUT)
    for name, on, where in made:
        drop_if_broken(name, "executions")
        op.create_index(
            op.f(name),
            "executions",
            on,
            if_not_exists=True,
            postgresql_concurrently=True,
            postgresql_where=sa.text(where),
        )
    for name, _, _ in dropped:
        op.drop_index(op.f(name), "executions", postgresql_concurrently=True, if_exists=True)
    op.execute(LOCK_TIMEOUT)


def _upgrade_sqlite() -> None:
    for table, added in columns().items():
        for column in added:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {ddl(column)}{_check_sqlite(column)}")
    _create_tables()
    _exchange_sqlite(NEW, OLD)


def _downgrade_sqlite() -> None:
    _exchange_sqlite(OLD, NEW)
    for table in TABLES:
        op.drop_table(table)
    for table, added in columns().items():
        for column in added:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {column.name}")


def _check_sqlite(column: sa.Column[Any]) -> str:
    return f" {STATUS_CHECK}" if column.name == "status" else ""


def _exchange_sqlite(made: Indexes, dropped: Indexes) -> None:
    for name, _, _ in dropped:
        op.drop_index(op.f(name), "executions")
    for name, on, where in made:
        op.create_index(op.f(name), "executions", on, sqlite_where=sa.text(where))
