"""Offers queues in which something waits to those who choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, literal_column, null, or_, select, true, tuple_

from store.column_types import UtcDateTime
from store.database.batch import encode, execute, moment, records, upsert, writes_in_with
from store.queues import counts
from store.queues.keys import KEY, KEY_TYPES, READY, QueueKey
from store.tables import NOW, queues

CHANNEL: Final = "dspex_queues"
"""The channel on which PostgreSQL tells, at the commit, that a queue became ready."""


def offer(
    connection: Connection,
    waiting: Iterable[tuple[QueueKey, datetime | None]],
    moves: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Make sure that what waits is found: its queue is ready, or becomes so when it may run.

    Call it last in a transaction, after the executions were written: it locks the rows of the queues, in their order,
    also of those that are ready. So nobody marks one of them empty who has not seen the executions (`choose`). Those
    that are ready are locked for others that offer, too: these do not wait for one another.

    Args:
        waiting: the queues, each with the time from when on something in it may run; None: now.
        moves: what is counted (`store.queues.counts.moves_of`); on PostgreSQL, by the same statement.
    """
    earliest: dict[QueueKey, datetime | None] = {}
    for key, run_at in waiting:
        before = earliest.setdefault(key, run_at)
        if before is not None and (run_at is None or run_at < before):
            earliest[key] = run_at
    if not earliest:
        return
    rows = [key._asdict() | {"run_at": moment(earliest[key])} for key in sorted(earliest)]
    dialect, insert, parameters = connection.dialect.name, upsert(connection), encode(rows)
    together = bool(moves) and writes_in_with(dialect)
    if together:
        parameters |= encode(moves, counts.MOVES)
    elif moves:
        counts.move(connection, moves)
    changed = execute(connection, _offer(dialect, insert, counted=together), parameters).all()
    if any(row.holder == READY for row in changed):
        tell(connection)


def tell(connection: Connection) -> None:
    """Wake idle processes when the transaction is committed. Does nothing on SQLite, which has one process."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_notify('{CHANNEL}', '')")


@lru_cache(maxsize=4)
def _offer(dialect: str, insert: Any, *, counted: bool) -> Any:
    """Parameter: `records` of keys with `run_at`; if `counted`, also `counts.MOVES`. Returns the queues that were
    changed.
    """
    r = records(dialect, KEY_TYPES | {"run_at": UtcDateTime()})
    now = or_(r.c.run_at.is_(None), r.c.run_at <= NOW)
    values = {name: r.c[name] for name in KEY} | {
        "holder": case((now, literal_column(f"'{READY}'")), else_=null()),
        "wake_at": case((now, null()), else_=r.c.run_at),
        "inserted_at": NOW,
    }
    there, by_key = queues.c, [r.c[name] for name in KEY]
    others: ColumnElement[bool] = true()  # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON
    if dialect == "postgresql":
        # Only for who marks them, these are locked.
        ready = (
            select(*(there[name] for name in KEY))
            .join_from(r, queues, and_(*(there[name] == r.c[name] for name in KEY)))
            .where(there.holder.is_not(None))
            .order_by(*(there[name] for name in KEY))
            .with_for_update(of=queues, read=True, key_share=True)
            .cte("ready")
        )
        others = tuple_(*by_key).not_in(select(*(ready.c[name] for name in KEY)))
    statement = insert(queues).from_select(list(values), select(*values.values()).where(others).order_by(*by_key))
    if counted:
        statement = statement.add_cte(counts.moving(dialect, insert).cte("moved"))
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={"holder": new.holder, "wake_at": new.wake_at},
        where=there.holder.is_(None)
        & or_(new.holder.is_not(None), there.wake_at.is_(None), there.wake_at > new.wake_at),
    ).returning(there.holder)
