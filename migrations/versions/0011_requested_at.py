"""Adds the time when an execution was requested: the `time` of its message, by the clock of the sender.

Workers of the previous version keep working during and after it; they leave the column NULL. Workers of this version
write it, so migrate first.

On PostgreSQL, the column is added without a rewrite; the statement waits at most 2 s for the table. If it fails,
nothing has changed: run it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import LOCK_TIMEOUT_HERE, ddl

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

LOSSES = {"executions with the time of their request": "executions WHERE requested_at IS NOT NULL"}
"""What a downgrade loses, and where there is some of it: a table, with a condition."""


def upgrade() -> None:
    _alter(f"ADD COLUMN {ddl(sa.Column('requested_at', sa.DateTime(timezone=True)))}")


def downgrade() -> None:
    """Loses the times of requests."""
    _alter("DROP COLUMN requested_at")


def _alter(change: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(LOCK_TIMEOUT_HERE)
    op.execute(f"ALTER TABLE executions {change}")
