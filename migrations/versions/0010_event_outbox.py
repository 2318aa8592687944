"""Renames the table `callbacks`, which has the unconfirmed events, to `event_outbox`.

Workers of the previous version keep working during and after it. On PostgreSQL, `callbacks` becomes a partitioned table
whose only partition is `event_outbox`. So these workers insert, read and lock rows of `event_outbox` by the old name,
and can name the primary key in ON CONFLICT, which a view does not allow. Migration 0015 drops the old name, when
these workers are gone. Workers of this version use only `event_outbox`, so migrate first.

On PostgreSQL, it changes the catalogue in one transaction, and reads no row; it waits at most 2 s for the table. If it
fails, nothing has changed: run it again. SQLite allows no upsert by a second name of a table, so end the processes of
the previous version first. A process that still runs waits for its table, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import CALLBACKS_DROPPED, CALLBACKS_MADE, LOCK_TIMEOUT_HERE

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

RENAMED = {"callbacks": "event_outbox"}
"""Tables by their previous names, for counting the losses of a downgrade below this revision."""

RENAME = (
    "ALTER TABLE callbacks RENAME TO event_outbox",
    "ALTER TABLE event_outbox RENAME CONSTRAINT pk_callbacks TO pk_event_outbox",
)
RENAME_BACK = (
    "ALTER TABLE event_outbox RENAME TO callbacks",
    "ALTER TABLE callbacks RENAME CONSTRAINT pk_event_outbox TO pk_callbacks",
)


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew("callbacks", "event_outbox")
        return
    for statement in (LOCK_TIMEOUT_HERE, *RENAME, *CALLBACKS_MADE):
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew("event_outbox", "callbacks")
        return
    for statement in (LOCK_TIMEOUT_HERE, *CALLBACKS_DROPPED, *RENAME_BACK):
        op.execute(statement)


def _make_anew(old: str, new: str) -> None:
    """Create the table again, because SQLite cannot rename a constraint."""
    op.create_table(
        new,
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.String(64), server_default=sa.text("'default'"), nullable=False),
        sa.Column("lock_version", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", "tenant", name=op.f(f"pk_{new}")),
    )
    op.execute(f"INSERT INTO {new} SELECT execution_id, tenant, lock_version, due_at, tries FROM {old}")  # noqa: S608
    op.drop_table(old)
