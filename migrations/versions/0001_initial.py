"""Signatures, programs, executions, counters and rejected messages."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0001"

LOSSES = {
    "signatures": "signatures",
    "programs": "programs",
    "executions": "executions",
    "rejected messages": "rejected_messages",
}
"""The data that a downgrade loses, by the table, and condition, that selects it."""

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "signatures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("module", sa.String(200)),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("instructions", sa.Text()),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("outputs", JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signatures")),
        sa.CheckConstraint("status IN ('draft', 'active', 'deprecated')", name=op.f("ck_signatures_status")),
    )
    op.create_index(op.f("ix_signatures_name"), "signatures", ["name"])
    op.create_index(op.f("ix_signatures_module_version"), "signatures", ["module", "version"], unique=True)

    op.create_table(
        "programs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("signature_id", sa.Uuid(), nullable=False),
        sa.Column("adapter_type", sa.String(64), nullable=False),
        sa.Column("configuration", JSON, nullable=False),
        sa.Column("backend_id", sa.String(128)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_programs")),
        sa.CheckConstraint(
            "status IN ('draft', 'initializing', 'ready', 'error', 'archived')", name=op.f("ck_programs_status")
        ),
        sa.ForeignKeyConstraint(["signature_id"], ["signatures.id"], name=op.f("fk_programs_signature_id")),
    )
    op.create_index(op.f("ix_programs_name"), "programs", ["name"])
    op.create_index(op.f("ix_programs_signature_id"), "programs", ["signature_id"])

    op.create_table(
        "executions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.String(55)),
        sa.Column("backend_id", sa.String(128)),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(128)),
        sa.Column("lease_expires_at", MOMENT),
        sa.Column("outputs", JSON),
        sa.Column("error", JSON),
        sa.Column("usage", JSON),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed')", name=op.f("ck_executions_status")
        ),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index(op.f("ix_executions_program_id_inserted_at"), "executions", ["program_id", "inserted_at"])
    op.create_index(
        op.f("ix_executions_open"),
        "executions",
        ["worker"],
        postgresql_where=sa.text("status IN ('pending', 'running')"),
        sqlite_where=sa.text("status IN ('pending', 'running')"),
    )

    op.create_table(
        "program_counters",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("completed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=False),
        sa.Column("last_executed_at", MOMENT, nullable=False),
        sa.Column("lock_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("program_id", "shard", name=op.f("pk_program_counters")),
        postgresql_with={"fillfactor": "50"},
    )

    op.create_table(
        "rejected_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("message_id", sa.String(512)),
        sa.Column("message_type", sa.String(512)),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.Integer(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_messages")),
    )
    op.create_index(op.f("ix_rejected_messages_inserted_at"), "rejected_messages", ["inserted_at"])


def downgrade() -> None:
    for table in ("rejected_messages", "program_counters", "executions", "programs", "signatures"):
        op.drop_table(table)
