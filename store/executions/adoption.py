"""Takes pending executions into their queues that workers from before queues have left.

Only such workers leave pending executions that are due: what waits in a queue, and what a service runs itself, is due
in a thousand years. Workers from before migration 0004 did not write `due_at`: what they have left is due by its lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, case, false, literal_column, select, true, update

from store.column_types import statement_now
from store.database.batch import encode, execute, records
from store.executions.statements import IS_EXTERNAL, NEVER, PENDING, QUEUED, RUN_AT
from store.executions.waiting import wait
from store.queues.keys import QueueKey, key_of
from store.tables import executions

_NOW = statement_now()
# Each begins with the columns of a partial index, and they are never combined: else PostgreSQL reads the table.
LEFT: Final = (
    PENDING & (executions.c.due_at < _NOW),
    PENDING & executions.c.due_at.is_(None) & (executions.c.lease_expires_at < _NOW),
)
"""The conditions of what is due."""

_ASKED = ("id", "request_digest", "tenant")


def adopt(connection: Connection, limit: int) -> int:
    """Take what is due into its queues, and offer them. Any number of callers may do this concurrently.

    Returns:
        How many; `limit` or more: there may be more.
    """
    c = executions.c
    most: ColumnElement[int] = literal_column(str(int(limit)))  # part of the text, as in `store.executions.leases`
    found = list[Row[Any]]()
    for due in LEFT:
        left = select(c.id, c.tenant).where(due, ~IS_EXTERNAL).order_by(c.due_at).limit(most)
        found += connection.execute(_taking(left.with_for_update(skip_locked=True).cte("left"))).all()
    wait(connection, [(key_of(row), row.run_at) for row in found])
    return len(found)


def adopt_these(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> list[tuple[QueueKey, datetime | None]]:
    """Take those of these requests that are pending, and in no queue, into theirs.

    Args:
        rows: see `store.executions.rows.request_row`.

    Returns:
        What is to be offered.
    """
    asked = encode({name: row[name] for name in _ASKED} for row in rows)
    found = execute(connection, _these(connection.dialect.name), asked)
    return [(key_of(row), row.run_at) for row in found]


@lru_cache(maxsize=2)
def _these(dialect: str) -> Any:
    c, r = executions.c, records(dialect, {name: executions.c[name].type for name in _ASKED})
    left = (
        select(c.id, c.tenant)
        .join_from(r, executions, (c.id == r.c.id) & (c.tenant == r.c.tenant))
        # An expression, so that each row is found by its id, as in `finish`.
        .where(case((PENDING & c.run_at.is_(None) & (c.request_digest == r.c.request_digest), true()), else_=false()))
        .with_for_update(of=executions, skip_locked=True)
    )
    return _taking(left.cte("left"))


def _taking(left: Any) -> Any:
    c = executions.c
    return (
        update(executions)
        .where(c.id == left.c.id, c.tenant == left.c.tenant)
        .values(run_at=RUN_AT, due_at=NEVER)
        .returning(c.tenant, *QUEUED)
    )
