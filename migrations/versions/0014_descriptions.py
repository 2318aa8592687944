"""Adds the description of a signature, which is for people.

Workers of the previous version keep working during and after it; they leave the column NULL, and do not read it.
Workers of this version write it, so migrate first.

On PostgreSQL, the column is added without a rewrite; the statement waits at most 2 s for the table. If it fails,
nothing has changed: run it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import LOCK_TIMEOUT_HERE, ddl

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

LOSSES = {"signatures with a description": "signatures WHERE description IS NOT NULL"}
"""What a downgrade loses, and where there is some of it: a table, with a condition."""


def upgrade() -> None:
    _alter(f"ADD COLUMN {ddl(sa.Column('description', sa.Text()))}")


def downgrade() -> None:
    """Loses the descriptions of signatures."""
    _alter("DROP COLUMN description")


def _alter(change: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(LOCK_TIMEOUT_HERE)
    op.execute(f"ALTER TABLE signatures {change}")
