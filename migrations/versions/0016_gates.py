"""Creates the tables of gates: what is paused or limited, and what running executions hold of the limits.

Workers of the previous version keep working during and after it, and know of no gate: what they run is in no limit.
Nothing but new tables is created, so nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import POLICY

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

GATES, SLOTS = "gates", "slots"
LOSSES = {"pauses and limits": GATES}
"""What a downgrade loses, and where there is some of it."""

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        GATES,
        sa.Column("key", sa.String(400), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(330), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("paused_by", sa.String(400)),
        sa.Column("paused_reason", sa.Text()),
        sa.Column("paused_at", MOMENT),
        sa.Column("in_flight", sa.Integer()),
        sa.Column("least_in_flight", sa.Integer()),
        sa.Column("requests_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_minute", sa.BigInteger()),
        sa.Column("limited_by", sa.String(400)),
        sa.Column("allowed", sa.Float()),
        sa.Column("shrunk_at", MOMENT),
        sa.Column("requests_left", sa.Float()),
        sa.Column("tokens_left", sa.Float()),
        sa.Column("filled_at", MOMENT),
        sa.Column("tokens_each", sa.Float()),
        sa.Column("swept_at", MOMENT),
        sa.Column("closed_until", MOMENT),
        sa.Column("closures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f(f"pk_{GATES}")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(op.f(f"ix_{GATES}_updated_at"), GATES, ["updated_at"])
    op.create_table(
        SLOTS,
        sa.Column("gate_key", sa.String(400), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.Column("lock_version", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("probe", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("calls", sa.Integer()),
        sa.Column("tokens", sa.BigInteger()),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gate_key", "execution_id", "tenant", name=op.f(f"pk_{SLOTS}")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(f"ix_{SLOTS}_execution", SLOTS, ["execution_id", "tenant"])
    if op.get_context().dialect.name == "postgresql":
        for table in (GATES, SLOTS):
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    """What a gate has held may run: nobody would know of the gate any more."""
    op.execute("UPDATE queues SET holder = '' WHERE holder <> ''")
    op.drop_table(SLOTS)
    op.drop_table(GATES)
