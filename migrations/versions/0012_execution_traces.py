"""Creates the table of traces: the steps of executions that asked for them.

Workers of the previous version keep working during and after it; they keep no traces. Workers of this version write
them, so migrate first. Workers of the previous version cannot read `options.trace` and `policy.trace_rate`, so the
downgrade removes both: the first is no part of what makes a request the same.

On PostgreSQL, its foreign key needs a lock on `executions`, for which it waits at most 2 s, and which it holds for a
moment, as the new table is empty. If it fails, nothing has changed: run it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.steps import LOCK_TIMEOUT_HERE, POLICY

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

TABLE = "execution_traces"
LOSSES = {"traces of executions": TABLE}
"""What a downgrade loses, and where there is some of it."""

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    if postgresql:
        op.execute(LOCK_TIMEOUT_HERE)
    op.create_table(
        TABLE,
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("steps", JSON, nullable=False),
        sa.Column("shortened", sa.Boolean(), nullable=False),
        sa.Column("inserted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "tenant", name=op.f(f"pk_{TABLE}")),
        sa.ForeignKeyConstraint(
            ["execution_id", "tenant"],
            ["executions.id", "executions.tenant"],
            name=op.f(f"fk_{TABLE}_execution_id"),
            ondelete="CASCADE",
        ),
    )
    if postgresql:
        op.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {TABLE} USING ({POLICY})")


def downgrade() -> None:
    """Loses every trace, and who asked for one."""
    if op.get_context().dialect.name == "sqlite":
        for statement in FORGET_SQLITE:
            op.execute(statement)
    else:
        with op.get_context().autocommit_block():
            for statement in FORGET_POSTGRESQL:
                op.execute(statement)
        op.execute(LOCK_TIMEOUT_HERE)
    op.drop_table(TABLE)


FORGET_POSTGRESQL = (
    """
    UPDATE executions SET options = options - 'trace', policy = policy - 'trace_rate'
    WHERE jsonb_exists(options, 'trace') OR jsonb_exists(policy, 'trace_rate')
    """,
    "UPDATE programs SET policy = policy - 'trace_rate' WHERE jsonb_exists(policy, 'trace_rate')",
)
FORGET_SQLITE = (
    """
    UPDATE executions
    SET options = json_remove(options, '$.trace'), policy = json_remove(policy, '$.trace_rate')
    WHERE json_type(options, '$.trace') IS NOT NULL OR json_type(policy, '$.trace_rate') IS NOT NULL
    """,
    """
    UPDATE programs SET policy = json_remove(policy, '$.trace_rate')
    WHERE json_type(policy, '$.trace_rate') IS NOT NULL
    """,
)
