"""Drops the name `callbacks`, by which workers from before 0010 use the table `event_outbox`.

Run it when no worker from before 0010 is left; it refuses to run while such workers are connected. Workers of this
version also run on 0018, so: migrate to 0018, replace the workers, migrate to 0019.

On PostgreSQL, it changes the catalogue in one transaction, and waits at most 2 s for the table. If it fails, nothing
has changed: run it again. SQLite has no such name.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import context, op

from migrations.steps import CALLBACKS_DROPPED, CALLBACKS_MADE, LOCK_TIMEOUT_HERE, REPLACE, refuse_beside

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0010"

BEFORE = ("dspex", "dspex/2", "dspex/3")
"""The application names of workers from before 0010."""


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        return
    if not context.is_offline_mode():
        refuse_beside(BEFORE, "could end no execution", REPLACE)
    _run(CALLBACKS_DROPPED)


def downgrade() -> None:
    if op.get_context().dialect.name != "sqlite":
        _run(CALLBACKS_MADE)


def _run(statements: Sequence[str]) -> None:
    for statement in (LOCK_TIMEOUT_HERE, *statements):
        op.execute(statement)
