"""A net: goes through the queues in which something waits, and offers those that were not offered."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, func, literal_column, or_, select, true, tuple_

from store.database.batch import encode, execute, records
from store.queues.keys import FIRST, KEY, KEY_TYPES, QueueKey, Swept, key_of
from store.queues.offers import offer
from store.statuses import PENDING
from store.tables import executions, queues


def reconcile(connection: Connection, after: QueueKey | None, limit: int) -> Swept:
    """Look at up to `limit` queues in which something waits, and offer those that nobody would find.

    Executions and their queues are written together, so one statement that sees both finds nothing wrong.

    Args:
        after: look behind this one, in the order of the key; None: begin anew.
    """
    dialect = connection.dialect.name
    found = execute(connection, _waiting(dialect), (after or FIRST)._asdict() | {"limit": limit}).all()
    keys = [key_of(row) for row in found]
    wrong = execute(connection, _wrong(dialect), encode(key._asdict() for key in keys)).all() if keys else []
    offer(connection, [(key_of(row), row.first) for row in wrong])
    return Swept(keys[-1] if len(keys) == limit else None, len(wrong))


@lru_cache(maxsize=2)
def _waiting(dialect: str) -> Any:
    """The next queues of pending executions, behind one, whose members are parameters; at most `limit`.

    PostgreSQL steps from one to the next in the index. SQLite has no LATERAL, and reads on.
    """
    c = executions.c
    key = [c[name] for name in KEY]
    after = [bindparam(name, type_=type_) for name, type_ in KEY_TYPES.items()]
    waits, limit = PENDING & c.run_at.is_not(None), bindparam("limit", type_=Integer)
    if dialect != "postgresql":
        return select(*key).where(waits, tuple_(*key) > tuple_(*after)).distinct().order_by(*key).limit(limit)

    def behind(cursor: list[Any]) -> Any:
        return select(*key).where(waits, tuple_(*key) > tuple_(*cursor)).order_by(*key).limit(1)

    first = behind(after).subquery("first")
    step = select(*(first.c[name] for name in KEY), literal_column("1").label("n")).cte("step", recursive=True)
    following = behind([step.c[name] for name in KEY]).lateral("following")
    more = select(*(following.c[name] for name in KEY), step.c.n + literal_column("1"))
    step = step.union_all(more.select_from(step.join(following, true())).where(step.c.n < limit))
    return select(*(step.c[name] for name in KEY)).order_by(step.c.n)


@lru_cache(maxsize=2)
def _wrong(dialect: str) -> Any:
    """Those of these queues that have no holder, and do not wake when the first of them may run."""
    c, q, r = executions.c, queues.c, records(dialect, KEY_TYPES)
    first = select(func.min(c.run_at)).where(PENDING, *(c[name] == r.c[name] for name in KEY)).correlate(r)
    looked = select(*(r.c[name] for name in KEY), first.scalar_subquery().label("first")).subquery("looked")
    same = [q[name] == looked.c[name] for name in KEY]
    unheld = q.holder.is_(None) & or_(q.wake_at.is_(None), q.wake_at > looked.c.first)
    return (
        select(*looked.c)
        .select_from(looked.outerjoin(queues, same[0] & same[1] & same[2] & same[3]))
        .where(looked.c.first.is_not(None), unheld)
    )
