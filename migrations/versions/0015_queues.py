"""Makes the database the queue: which executions wait, in which lane, and which queues have something that may run.

Workers of the previous version keep working during and after it: every new column may be NULL or has a default. What
they leave pending has no `run_at`; workers of this version take it over when it is due. What this version leaves
pending is due in a thousand years for the relay of a previous version, which therefore publishes none of it. So
migrate, and then replace the workers.

On PostgreSQL, no table is locked for longer than a change of the catalogue takes: the columns are added without a
rewrite, and the index is built concurrently. If a statement fails, run the migration again; it skips what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.steps import LOCK_TIMEOUT, LOCK_TIMEOUT_HERE, NO_LOCK_TIMEOUT, POLICY, ddl, drop_if_broken

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

QUEUES, CANCELS, INDEX = "queues", "early_cancels", "ix_executions_queue"
LOSSES = {"lanes of executions": "executions WHERE lane <> 1"}
"""What a downgrade loses, and where there is some of it: a table, with a condition."""

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
MOMENT = sa.DateTime(timezone=True)
PENDING = sa.text("status = 'pending'")
HELD = sa.text("holder IS NOT NULL")
ASLEEP = sa.text("holder IS NULL AND wake_at IS NOT NULL")


def columns() -> list[sa.Column[Any]]:
    """The new columns of `executions`."""
    return [
        sa.Column("lane", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("group_key", sa.String(64), server_default=sa.text("''"), nullable=False),
        sa.Column("run_at", MOMENT),
    ]


def upgrade() -> None:
    indexed = ["tenant", "program_id", "lane", "group_key", "run_at"]
    if op.get_context().dialect.name == "sqlite":
        for column in columns():
            op.execute(f"ALTER TABLE executions ADD COLUMN {ddl(column)}")
        op.create_index(INDEX, "executions", indexed, sqlite_where=PENDING)
        _create_tables()
        return
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        added = ", ".join(f"ADD COLUMN IF NOT EXISTS {ddl(column)}" for column in columns())
        op.execute(f"ALTER TABLE executions {added}")
        op.execute(NO_LOCK_TIMEOUT)
        drop_if_broken(INDEX, "executions")
        op.create_index(
            INDEX,
            "executions",
            indexed,
            postgresql_where=PENDING,
            postgresql_concurrently=True,
            if_not_exists=True,
        )
    _create_tables()
    for table in (QUEUES, CANCELS):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    """What waits is due for a relay again, at the time when it may run; lanes are lost, and who cancels too early."""
    if op.get_context().dialect.name == "sqlite":
        op.execute(DUE)
        op.execute(FORGET_SQLITE)
        op.drop_index(INDEX, "executions")
        for column in columns():
            op.execute(f"ALTER TABLE executions DROP COLUMN {column.name}")
        _drop_tables()
        return
    with op.get_context().autocommit_block():
        op.execute(DUE)
        op.execute(FORGET_POSTGRESQL)
    op.execute(LOCK_TIMEOUT_HERE)
    _drop_tables()
    # The index of a column is dropped with the column.
    op.execute(f"ALTER TABLE executions {', '.join(f'DROP COLUMN IF EXISTS {column.name}' for column in columns())}")


DUE = "UPDATE executions SET due_at = run_at WHERE status = 'pending' AND run_at IS NOT NULL"
FORGET_POSTGRESQL = "UPDATE executions SET options = options - 'lane' WHERE jsonb_exists(options, 'lane')"
FORGET_SQLITE = (
    "UPDATE executions SET options = json_remove(options, '$.lane') WHERE json_type(options, '$.lane') IS NOT NULL"
)
"""Workers of the previous version cannot read the member."""


def _drop_tables() -> None:
    op.drop_table(CANCELS)
    op.drop_table(QUEUES)


def _create_tables() -> None:
    tenant = sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False)
    op.create_table(
        QUEUES,
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("group_key", sa.String(64), server_default=sa.text("''"), nullable=False),
        sa.Column("holder", sa.String(400)),
        sa.Column("wake_at", MOMENT),
        sa.Column("labels", JSON),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "program_id", "lane", "group_key", name=op.f(f"pk_{QUEUES}")),
        postgresql_with={"fillfactor": "70"},
    )
    chosen = ["holder", "lane", "tenant", "program_id", "group_key"]
    op.create_index(f"ix_{QUEUES}_holder", QUEUES, chosen, postgresql_where=HELD, sqlite_where=HELD)
    op.create_index(f"ix_{QUEUES}_wake", QUEUES, ["wake_at"], postgresql_where=ASLEEP, sqlite_where=ASLEEP)
    op.create_table(
        CANCELS,
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        tenant,
        sa.Column("by", sa.String(400), nullable=False),
        sa.Column("inserted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "tenant", name=op.f(f"pk_{CANCELS}")),
    )
