"""Offers queues in which something waits to those who choose."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, case, literal_column, null, or_, select, true

from store.column_types import UtcDateTime
from store.database.batch import encode, execute, moment, records, upsert
from store.queues.keys import KEY, KEY_TYPES, READY, QueueKey
from store.tables import NOW, queues

CHANNEL: Final = "dspex_queues"
"""The channel on which PostgreSQL tells, at the commit, that a queue became ready."""


def offer(connection: Connection, waiting: Iterable[tuple[QueueKey, datetime | None]]) -> None:
    """Make sure that what waits is found: its queue is ready, or becomes so when it may run.

    Call it last in a transaction, after the executions were written: it locks the rows of the queues, in their order,
    also of those that are ready. So nobody marks one of them empty who has not seen the executions (`choose`).

    Args:
        waiting: the queues, each with the time from when on something in it may run; None: now.
    """
    earliest: dict[QueueKey, datetime | None] = {}
    for key, run_at in waiting:
        before = earliest.setdefault(key, run_at)
        if before is not None and (run_at is None or run_at < before):
            earliest[key] = run_at
    if not earliest:
        return
    rows = [key._asdict() | {"run_at": moment(earliest[key])} for key in sorted(earliest)]
    changed = execute(connection, _offer(connection.dialect.name, upsert(connection)), encode(rows)).all()
    if any(row.holder == READY for row in changed):
        tell(connection)


def tell(connection: Connection) -> None:
    """Wake idle processes when the transaction is committed. Does nothing on SQLite, which has one process."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_notify('{CHANNEL}', '')")


@lru_cache(maxsize=2)
def _offer(dialect: str, insert: Any) -> Any:
    """Parameter: `records` of keys with `run_at`. Returns the queues that were changed."""
    r = records(dialect, KEY_TYPES | {"run_at": UtcDateTime()})
    now = or_(r.c.run_at.is_(None), r.c.run_at <= NOW)
    values = {name: r.c[name] for name in KEY} | {
        "holder": case((now, literal_column(f"'{READY}'")), else_=null()),
        "wake_at": case((now, null()), else_=r.c.run_at),
        "inserted_at": NOW,
    }
    statement = insert(queues).from_select(
        list(values), select(*values.values()).where(true()).order_by(*(r.c[name] for name in KEY))
    )
    there, new = queues.c, statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={"holder": new.holder, "wake_at": new.wake_at},
        where=there.holder.is_(None)
        & or_(new.holder.is_not(None), there.wake_at.is_(None), there.wake_at > new.wake_at),
    ).returning(there.holder)
