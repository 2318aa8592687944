"""Webhooks: endpoints, deliveries and their attempts; callbacks of executions and programs.

Workers of the previous version keep working during and after it: the new columns may be NULL, and they do not use the
new tables. They reject messages with fields that they do not know, so send the new fields when these workers are gone.

On PostgreSQL, no table is locked for longer than a change of the catalogue takes: each statement on a table in use
commits by itself. If a statement fails, run the migration again; it skips what is already done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.steps import LOCK_TIMEOUT, ddl

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0004"

LOSSES = {
    "endpoints of webhooks": "webhook_endpoints",
    "deliveries that are not made yet": "webhook_deliveries WHERE status = 'pending'",
    "deliveries in the log": "webhook_deliveries WHERE status <> 'pending'",
    "callbacks of programs": "programs WHERE callback IS NOT NULL AND CAST(callback AS TEXT) <> 'null'",
}
"""The data that a downgrade loses, by the table, and condition, that selects it."""

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)

COLUMNS = {"executions": ("callback", "program_callback"), "programs": ("callback",)}
"""The new columns of each table. The busiest table is first, so that nothing is done yet if it is locked."""

TABLES = ("webhook_endpoints", "webhook_deliveries", "webhook_attempts")
POLICY = "tenant = current_setting('dspex.tenant', true) OR current_setting('dspex.tenant', true) = '*'"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for table, names in COLUMNS.items():
            for name in names:
                op.execute(f"ALTER TABLE {table} ADD COLUMN {ddl(sa.Column(name, JSON))}")
        _create_tables()
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for table, names in COLUMNS.items():
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {ddl(sa.Column(name, JSON))}" for name in names)
            op.execute(f"ALTER TABLE {table} {added}")
    _create_tables()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    """Endpoints, pending deliveries and the log of deliveries are lost."""
    if op.get_context().dialect.name == "sqlite":
        for table in reversed(TABLES):
            op.drop_table(table)
        for table, names in COLUMNS.items():
            for name in names:
                op.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for table, names in COLUMNS.items():
            op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN IF EXISTS {name}' for name in names)}")
        for table in reversed(TABLES):
            op.execute(f"DROP TABLE IF EXISTS {table}")


def _versioned() -> list[sa.Column[Any]]:
    return [
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    ]


def _tenant() -> sa.Column[Any]:
    return sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False)


def _create_tables() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("previous_secret", sa.String(100)),
        sa.Column("previous_until", MOMENT),
        sa.Column("events", JSON, nullable=False),
        sa.Column("headers", JSON, nullable=False),
        sa.Column("thin", sa.Boolean(), nullable=False),
        sa.Column("registered", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("disabled_at", MOMENT),
        sa.Column("failing_since", MOMENT),
        sa.Column("announce_at", MOMENT),
        *_versioned(),
        _tenant(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    _index("webhook_endpoints", "tenant_inserted_at", "tenant", "inserted_at")
    _index("webhook_endpoints", "registered", "tenant", "inserted_at", where="registered")
    _index("webhook_endpoints", "announce", "announce_at", where="announce_at IS NOT NULL")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("event_version", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("place", sa.String(400), nullable=False),
        sa.Column("due_at", MOMENT),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("finished_at", MOMENT),
        sa.Column("status", sa.String(16), nullable=False),
        *_versioned(),
        _tenant(),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        postgresql_with={"fillfactor": "85"},
    )
    _index(
        "webhook_deliveries",
        "execution_id_event_version_endpoint_id",
        *("execution_id", "event_version", "endpoint_id"),
        unique=True,
    )
    _index("webhook_deliveries", "tenant_inserted_at", "tenant", "inserted_at")
    _index("webhook_deliveries", "tenant_endpoint_id_inserted_at", "tenant", "endpoint_id", "inserted_at")
    _index("webhook_deliveries", "failed", "tenant", "inserted_at", where="status = 'failed'")
    _index("webhook_deliveries", "due", "due_at", where="status = 'pending'")
    _index("webhook_deliveries", "place", "place", "due_at", where="status = 'pending'")
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        _tenant(),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )


def _index(table: str, name: str, *columns: str, where: str | None = None, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        op.f(f"ix_{table}_{name}"),
        table,
        list(columns),
        unique=unique,
        postgresql_where=condition,
        sqlite_where=condition,
    )
