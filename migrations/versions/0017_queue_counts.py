"""Counts what waits: how many came to a queue and went from it, and how many are there.

Workers of the previous version keep working during and after it: they do not count what they make pending or claim,
which workers of this version find out and correct.

On PostgreSQL, it only creates tables, in one transaction. If a statement fails, run the migration again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import POLICY

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

MOVES, COUNTS = "queue_moves", "queue_counts"
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    number, none = sa.BigInteger(), sa.text("0")
    op.create_table(
        MOVES,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("came", sa.Integer(), nullable=False),
        sa.Column("went", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{MOVES}")),
    )
    op.create_table(
        COUNTS,
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("waiting", number, nullable=False),
        sa.Column("oldest_at", MOMENT),
        sa.Column("period", number, nullable=False),
        sa.Column("came", number, nullable=False),
        sa.Column("went", number, nullable=False),
        sa.Column("came_before", number, server_default=none, nullable=False),
        sa.Column("went_before", number, server_default=none, nullable=False),
        sa.Column("moving_since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "program_id", "lane", name=op.f(f"pk_{COUNTS}")),
        postgresql_with={"fillfactor": "50"},
    )
    if op.get_context().dialect.name == "sqlite":
        return
    for table in (MOVES, COUNTS):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    op.drop_table(COUNTS)
    op.drop_table(MOVES)
