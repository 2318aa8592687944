"""Metadata of executions, and the extension attributes of the envelopes that asked for them; of how many executions the
counters' tokens and cost are known.

Workers from before it go on while it runs, and after it: the new columns may be NULL, or have a default. They do not
know the new fields of messages, and would reject them: send these when the old workers are gone. What they count, 0009
looks up in the rows.

On PostgreSQL the columns are added without a rewrite, by a statement for each table that waits 2 s for it at most.
Where one fails, run the migration again.
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
"""What a downgrade loses, and where there is some of it: a table, with a condition."""

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
    """Executions lose their metadata, and their events the extension attributes of what asked for them."""
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
