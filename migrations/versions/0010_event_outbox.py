"""The table `callbacks` becomes `event_outbox`: it has the events that are not confirmed yet.

Workers from before it go on while it runs, and after it. On PostgreSQL `callbacks` is a partitioned table then, whose
only partition is `event_outbox`: their rows go there, are read and locked there, and meet a conflict by the key that
they name, which no view has. The next migration takes it away, when these workers are gone. Workers of this version
know `event_outbox` alone: migrate first.

On PostgreSQL it changes the catalogue in one transaction, and reads no row; it waits 2 s for the table at most. Where
it fails, nothing has changed: run it again. SQLite takes no upsert by a second name of a table: end the processes of
the version before first. One that still runs waits for its table, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from migrations.steps import CALLBACKS_DROPPED, CALLBACKS_MADE, LOCK_TIMEOUT

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: dict[str, str] = {"postgresql": "0007", "sqlite": "0010"}

RENAMED = {"callbacks": "event_outbox"}
"""Tables by their names before: what a downgrade below counts the losses of."""

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
    for statement in (LOCK_TIMEOUT, *RENAME, *CALLBACKS_MADE):
        op.execute(statement)


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew("event_outbox", "callbacks")
        return
    for statement in (LOCK_TIMEOUT, *CALLBACKS_DROPPED, *RENAME_BACK):
        op.execute(statement)


def _make_anew(old: str, new: str) -> None:
    """SQLite does not rename a constraint."""
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
