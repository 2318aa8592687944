"""Unique indexes on tenant and id, which 0008 makes the primary keys.

Workers of the previous version keep working during and after it: the primary keys on the id alone stay until the next
migration, which is for when these workers are gone. Until then, no two tenants can use the same id.

On PostgreSQL, the indexes are built concurrently, and each commits by itself. If one fails, run the migration again.
SQLite needs none, as the next migration creates its tables again.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from migrations.steps import LOCK_TIMEOUT, NO_LOCK_TIMEOUT, drop_if_broken

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0005"

INDEXES = {
    "uq_executions_key": ("executions", ["id", "tenant"]),
    "uq_callbacks_key": ("callbacks", ["execution_id", "tenant"]),
    "uq_program_counters_key": ("program_counters", ["program_id", "shard", "tenant"]),
    "uq_program_durations_key": ("program_durations", ["program_id", "shard", "bucket", "tenant"]),
    "uq_programs_key": ("programs", ["id", "tenant"]),
    "uq_signatures_key": ("signatures", ["id", "tenant"]),
    "uq_webhook_endpoints_key": ("webhook_endpoints", ["id", "tenant"]),
    "ix_webhook_deliveries_end": (
        "webhook_deliveries",
        ["execution_id", "event_version", "endpoint_id", "tenant"],
    ),
}


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return
    with op.get_context().autocommit_block():
        op.execute(NO_LOCK_TIMEOUT)
        for name, (table, columns) in INDEXES.items():
            drop_if_broken(name, table)
            op.create_index(op.f(name), table, columns, unique=True, if_not_exists=True, postgresql_concurrently=True)
        op.execute(LOCK_TIMEOUT)


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return
    with op.get_context().autocommit_block():
        for name, (table, _) in INDEXES.items():
            op.drop_index(op.f(name), table, postgresql_concurrently=True, if_exists=True)
