"""Metadata of executions, and the extension attributes of the envelopes that asked for them.

Workers from before it go on while it runs, and after it: the new columns may be NULL. They do not know the new fields
of messages, and would reject them: send these when the old workers are gone.

On PostgreSQL the columns are added without a rewrite, by one statement that waits 2 s for the table at most. Where it
fails, run the migration again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

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
LOCK_TIMEOUT = "SET lock_timeout = '2s'"
COLUMNS = ("metadata", "extensions")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for name in COLUMNS:
            op.execute(f"ALTER TABLE executions ADD COLUMN {_ddl(name)}")
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        op.execute(f"ALTER TABLE executions {', '.join(f'ADD COLUMN IF NOT EXISTS {_ddl(name)}' for name in COLUMNS)}")


def downgrade() -> None:
    """Executions lose their metadata, and their events the extension attributes of what asked for them."""
    if op.get_context().dialect.name == "sqlite":
        for name in COLUMNS:
            op.execute(f"ALTER TABLE executions DROP COLUMN {name}")
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        op.execute(f"ALTER TABLE executions {', '.join(f'DROP COLUMN IF EXISTS {name}' for name in COLUMNS)}")


def _ddl(name: str) -> str:
    return str(sa.schema.CreateColumn(sa.Column(name, JSON)).compile(dialect=op.get_context().dialect))
