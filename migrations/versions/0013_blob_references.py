"""Creates the table of references to blobs, which executions have values in the blob store, and that of its owners.

Workers of the previous version keep working during and after it: none of their executions has such values, as they
refuse them. Workers of this version write references, so migrate first.

On PostgreSQL, its foreign key needs a lock on `executions`, for which it waits at most 2 s, and which it holds for a
moment, as the new table is empty. If it fails, nothing has changed: run it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import LOCK_TIMEOUT_HERE, POLICY

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

TABLE = "blob_references"
OWNERS = "blob_owners"
LOSSES = {"references to blobs, which are removed for unused after the next upgrade": TABLE}
"""What a downgrade loses, and where there is some of it."""


def upgrade() -> None:
    postgresql = op.get_context().dialect.name == "postgresql"
    if postgresql:
        op.execute(LOCK_TIMEOUT_HERE)
    op.create_table(
        TABLE,
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "tenant", "digest", name=op.f(f"pk_{TABLE}")),
        sa.ForeignKeyConstraint(
            ["execution_id", "tenant"],
            ["executions.id", "executions.tenant"],
            name=op.f(f"fk_{TABLE}_execution_id"),
            ondelete="CASCADE",
        ),
    )
    op.create_index(op.f(f"ix_{TABLE}_digest"), TABLE, ["digest", "tenant"])
    op.create_table(
        OWNERS,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("inserted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{OWNERS}")),
    )
    if postgresql:
        op.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {TABLE} USING ({POLICY})")


def downgrade() -> None:
    """Loses every reference, and the marks of owners: unused blobs are kept then, until the store is adopted."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(LOCK_TIMEOUT_HERE)
    op.drop_table(OWNERS)
    op.drop_table(TABLE)
