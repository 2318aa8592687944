"""Creates the register of live workers: what each worker process serves, and until when it is known to live.

Workers of the previous version keep working during and after it, and are not in it.

It only creates a table, in one transaction. If a statement fails, run the migration again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.steps import POLICY

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

WORKERS = "workers"
MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        WORKERS,
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'*'"), nullable=False),
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("serves", JSON, nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("lease_expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f(f"pk_{WORKERS}")),
        postgresql_with={"fillfactor": "50"},
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {WORKERS} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {WORKERS} USING ({POLICY})")


def downgrade() -> None:
    op.drop_table(WORKERS)
