"""Steps that several migrations share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError

LOCK_TIMEOUT = "SET lock_timeout = '2s'"
"""How long a change of a table waits for its lock. Meanwhile, everybody who wants the table waits behind it."""
NO_LOCK_TIMEOUT = "SET lock_timeout = 0"
"""For concurrent index builds, which wait for every older transaction, while nobody waits for them."""


def ddl(column: sa.Column[Any]) -> str:
    """The definition of a column in the SQL of this database."""
    return str(sa.schema.CreateColumn(column).compile(dialect=op.get_context().dialect))


def drop_if_broken(index: str, table: str) -> None:
    """Drop an index that a failed build has left, so that it can be built again. PostgreSQL only."""
    if context.is_offline_mode():
        return
    broken = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")
    if op.get_bind().execute(broken, {"name": index}).first() is not None:
        op.drop_index(op.f(index), table, postgresql_concurrently=True, if_exists=True)


def refuse_beside(names: Collection[str], what_they_could_not: str) -> None:
    """Refuse to migrate while older workers are connected. PostgreSQL only.

    Args:
        names: the application names of their sessions, see `store.database.engine.APPLICATION_NAME`.

    Raises:
        CommandError: older workers are connected.
    """
    found = op.get_bind().execute(
        sa.text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = ANY (:names)"
        ),
        {"names": list(names)},
    )
    sessions = found.scalar_one()
    if sessions:
        raise CommandError(
            f"workers of an earlier version are connected ({sessions} sessions), and {what_they_could_not} after this: "
            "replace them, then migrate again; workers of this version run on what there is"
        )
