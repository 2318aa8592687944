"""Metadata and extension attributes of executions; the number of executions with known tokens and cost.

The extension attributes are those of the envelope that requested the execution. Workers of the previous version keep
working during and after it: the new columns may be NULL, or have a default. They reject messages with fields that they
do not know, so send the new fields when these workers are gone. Migration 0009 adds to the counters what these workers
did not count.

On PostgreSQL, one statement for each table adds the columns, without a rewrite; it waits at most 2 s for the table. If
a statement fails, run the migration again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.steps import LOCK_TIMEOUT, ddl

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0005"

LOSSES = {
    "executions with metadata": "executions WHERE metadata IS NOT NULL AND CAST(metadata AS TEXT) <> 'null'",
    "executions with extension attributes": (
        "executions WHERE extensions IS NOT NULL AND CAST(extensions AS TEXT) <> 'null'"
    ),
}
"""The data that a downgrade loses, by the table, and condition, that selects it."""

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def _columns() -> dict[str, list[sa.Column[Any]]]:
    known = ("tokens_known", "cost_known")
    return {
        "executions": [sa.Column(name, JSON) for name in ("metadata", "extensions")],
        "program_counters": [
            sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0")) for name in known
        ],
    }


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for table, columns in _columns().items():
            for column in columns:
                op.execute(f"ALTER TABLE {table} ADD COLUMN {ddl(column)}")
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for table, columns in _columns().items():
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {ddl(column)}" for column in columns)
            op.execute(f"ALTER TABLE {table} {added}")


def downgrade() -> None:
    """Executions lose their metadata, and events that are not sent yet lose their extension attributes."""
    if op.get_context().dialect.name == "sqlite":
        for table, columns in _columns().items():
            for column in columns:
                op.execute(f"ALTER TABLE {table} DROP COLUMN {column.name}")
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        for table, columns in _columns().items():
            dropped = ", ".join(f"DROP COLUMN IF EXISTS {column.name}" for column in columns)
            op.execute(f"ALTER TABLE {table} {dropped}")
