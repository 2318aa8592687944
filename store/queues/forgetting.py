"""Deletes the rows of queues that nobody needs any more: empty ones, of programs that are gone or idle for long."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    exists,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
)

from store.column_types import database_now
from store.database.batch import encode, execute, records
from store.queues.counts import KEPT_PERIODS, SECONDS
from store.queues.keys import FIRST, KEY, KEY_TYPES, QueueKey, Swept, key_of
from store.statuses import PENDING
from store.tables import executions, programs, queue_counts, queues

KEPT_SECONDS: Final = float(KEPT_PERIODS * SECONDS)
"""No younger queue is deleted. A program's counts are kept for as long after its last execution."""

_Q = queues.c
_UNHELD = _Q.holder.is_(None) & _Q.wake_at.is_(None)


def forget(connection: Connection, after: QueueKey | None, limit: int) -> Swept:
    """Look at the next `limit` queues, and delete those that are empty, if their program is gone, or nothing has moved
    in its lane for long.

    What stands for labels is kept as long as its program: an execution that waits there again has only its name.

    No offer is lost: who offers to such a queue changes its row. It is deleted by who has locked it, and has found
    nothing in it in a new statement; whoever offers meanwhile waits for that, and inserts it again. Any number of
    callers may do this at once.

    Args:
        after: look behind this one, in the order of the key; None: begin anew.
    """
    dialect = connection.dialect.name
    found = execute(connection, _next(), (after or FIRST)._asdict() | {"limit": limit}).all()
    unneeded = [key_of(row) for row in found if row.unneeded]
    number = 0
    if unneeded:
        held = execute(connection, _holding(dialect), encode(key._asdict() for key in unneeded)).all()
        if held:
            again = encode(key_of(row)._asdict() for row in held)
            number = len(execute(connection, _deleting(dialect), again).all())
    return Swept(key_of(found[-1]) if len(found) == limit else None, number)


def _same(one: Any, other: Any, *names: str) -> ColumnElement[bool]:
    return and_(*(one[name] == other[name] for name in names))


def _unneeded() -> ColumnElement[bool]:
    """The condition on a queue, but for what is in it."""
    p, k = programs.c, queue_counts.c
    gone = not_(exists(select(p.id).where(p.id == _Q.program_id, p.tenant == _Q.tenant)))
    idle = not_(exists(select(k.lane).where(_same(k, _Q, "tenant", "program_id", "lane"))))
    old = _Q.inserted_at < database_now(-KEPT_SECONDS)
    return and_(_UNHELD, old, or_(gone, and_(_Q.group_key == literal_column("''"), idle)))


@lru_cache(maxsize=1)
def _next() -> Any:
    """The next queues behind one, whose members are parameters; at most `limit`, whatever is true of them."""
    key, after = [_Q[name] for name in KEY], [bindparam(name, type_=type_) for name, type_ in KEY_TYPES.items()]
    window = select(*key, _unneeded().label("unneeded")).where(tuple_(*key) > tuple_(*after))
    return window.order_by(*key).limit(bindparam("limit", type_=Integer))


@lru_cache(maxsize=2)
def _holding(dialect: str) -> Any:
    r = records(dialect, KEY_TYPES)
    held = select(*(_Q[name] for name in KEY)).join_from(r, queues, _same(_Q, r.c, *KEY)).where(_UNHELD)
    return held.order_by(*(_Q[name] for name in KEY)).with_for_update(of=queues, skip_locked=True)


@lru_cache(maxsize=2)
def _deleting(dialect: str) -> Any:
    r = records(dialect, KEY_TYPES)
    its = tuple_(*(_Q[name] for name in KEY)).in_(select(*(r.c[name] for name in KEY)))
    waiting = exists(select(executions.c.id).where(PENDING, _same(executions.c, _Q, *KEY)).correlate(queues))
    return delete(queues).where(its, _unneeded(), not_(waiting)).returning(_Q.tenant)
