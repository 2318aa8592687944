"""Counts how many executions wait, by tenant, program and lane, so that nobody has to scan them.

Who makes executions pending or takes them away inserts a row of `queue_moves`, in the same transaction: how many came
and how many went. It updates no row, so it waits for nobody, and an execution that runs at once writes nothing.
`fold` adds the moves to `queue_counts` and deletes them. What waits is the sum of both tables, exact at any moment.

An external execution does not wait here: it has no `run_at`. `repair` finds what workers from before 0017 have moved
without a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    SmallInteger,
    String,
    Uuid,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT, uuid7
from store.column_types import UtcDateTime
from store.database.batch import encode, execute, moment, records, upsert
from store.statuses import PENDING
from store.tables import NOW, executions, queue_counts, queue_moves, queues

SECONDS = 60
"""What came and went is kept for this period and for the one before."""
KEPT_PERIODS = 60
"""A program's row is deleted when nothing waits and nothing has moved for so many periods."""

MOVES = "moves"
"""The parameter of `moving`: records of what came to the waiting ones of a program in a lane, and what went."""

DEEPEST = 10_000
"""The deepest queue whose executions `repair` counts."""

_KEY: dict[str, Any] = {"tenant": String(), "program_id": Uuid(), "lane": SmallInteger()}


class Counted(NamedTuple):
    """What is counted together: the waiting executions of a program in a lane."""

    tenant: str
    program_id: UUID
    lane: int = Lane.DEFAULT.number


def of(row: Any) -> Counted:
    """What a row of `executions` is counted with."""
    return Counted(row.tenant or DEFAULT_TENANT, row.program_id, row.lane)


def came(connection: Connection, waiting: Iterable[Counted]) -> None:
    """Executions were made pending, of these: one for each. Call it in the same transaction."""
    moved(connection, Counter(waiting), {})


def went(connection: Connection, gone: Iterable[Counted]) -> None:
    """Executions that were pending are not any more, of these: one for each. Call it in the same transaction."""
    moved(connection, {}, Counter(gone))


def moved(connection: Connection, came: Mapping[Counted, int], went: Mapping[Counted, int]) -> None:
    """So many executions were made pending, and so many are not any more. Does nothing if there are none."""
    rows = moves_of(came, went)
    if rows:
        move(connection, rows)


def moves_of(came: Mapping[Counted, int], went: Mapping[Counted, int]) -> list[dict[str, Any]]:
    """The records of `moving`."""
    return [
        {"id": uuid7(), **key._asdict(), "came": came.get(key, 0), "went": went.get(key, 0)}
        for key in dict.fromkeys((*came, *went))
    ]


def move(connection: Connection, moves: Sequence[Mapping[str, Any]]) -> None:
    """Write what has moved."""
    execute(connection, moving(connection.dialect.name, upsert(connection)), encode(moves, MOVES))


@lru_cache(maxsize=2)
def moving(dialect: str, insert: Any) -> Any:
    """Inserts what has moved. Parameter: `MOVES`."""
    columns = {"id": Uuid()} | _KEY | {"came": Integer(), "went": Integer()}
    r = records(dialect, columns, MOVES)
    return insert(queue_moves).from_select([*columns], select(*(r.c[name] for name in columns)))


def anything_moved(connection: Connection) -> bool:
    """Whether there is something to fold. Locks nothing."""
    return bool(connection.execute(select(exists(select(queue_moves.c.id)))).scalar_one())


def fold(connection: Connection, limit: int) -> int:
    """Add up to `limit` moves to the counts, and find since when the oldest of these programs waits.

    Any number of callers may do this at once. Returns how many moves it has taken: if `limit`, there may be more.
    """
    c = queue_moves.c
    # The oldest first: an id begins with its time.
    some = select(c.id).order_by(c.id).limit(limit).with_for_update(skip_locked=True)
    taken = connection.execute(delete(queue_moves).where(c.id.in_(some)).returning(c.came, c.went, *_columns(c))).all()
    if not taken:
        return 0
    came, went = Counter[Counted](), Counter[Counted]()
    for row in taken:
        came[of(row)] += row.came
        went[of(row)] += row.went
    now = clock(connection)
    keys = sorted(came.keys() | went.keys())
    oldest = _oldest(connection, keys)
    rows = [
        {
            **key._asdict(),
            "waiting": came[key] - went[key],
            "oldest_at": moment(oldest.get(key)),
            "period": period_of(now),
            "came": came[key],
            "went": went[key],
            "moving_since": moment(now),
        }
        for key in keys
    ]
    execute(connection, _add(connection.dialect.name, upsert(connection)), encode(rows))
    return len(taken)


def clock(connection: Connection) -> datetime:
    """The time of the database's clock."""
    return connection.execute(select(NOW)).scalar_one()


def period_of(at: datetime) -> int:
    """The number of the period that a time is in."""
    return int(at.timestamp()) // SECONDS


def _columns(c: Any) -> list[Any]:
    return [c[name] for name in _KEY]


@lru_cache(maxsize=2)
def _add(dialect: str, insert: Any) -> Any:
    c = queue_counts.c
    amounts = dict.fromkeys(("waiting", "period", "came", "went"), BigInteger())
    columns = _KEY | amounts | {"oldest_at": UtcDateTime(), "moving_since": UtcDateTime()}
    r = records(dialect, columns)
    # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
    rows = select(*(r.c[name] for name in columns)).where(r.c.tenant.is_not(None))
    # In the order of the key: two that fold at once cannot deadlock.
    statement = insert(queue_counts).from_select([*columns], rows.order_by(*_columns(r.c)))
    new = statement.excluded
    # A clock that is set back does not take a period back.
    same, next_one = c.period >= new.period, c.period == new.period - 1
    return statement.on_conflict_do_update(
        index_elements=list(queue_counts.primary_key),
        set_={
            "waiting": c.waiting + new.waiting,
            "oldest_at": new.oldest_at,
            "period": case((same, c.period), else_=new.period),
            "came": case((same, c.came + new.came), else_=new.came),
            "went": case((same, c.went + new.went), else_=new.went),
            "came_before": case((same, c.came_before), (next_one, c.came), else_=0),
            "went_before": case((same, c.went_before), (next_one, c.went), else_=0),
            "moving_since": case((same | next_one, c.moving_since), else_=new.moving_since),
        },
    )


def _oldest(connection: Connection, keys: Iterable[Counted]) -> dict[Counted, datetime]:
    """From when on the first of each may run: one look at the index for each group with something that waits."""
    q = queues.c
    r = records(connection.dialect.name, _KEY)
    c = executions.c
    first = (
        select(c.run_at)
        .where(PENDING, *(c[name] == q[name] for name in (*_KEY, "group_key")), c.run_at.is_not(None))
        .order_by(c.run_at)
        .limit(1)
        .scalar_subquery()
    )
    statement = (
        select(*_columns(q), func.min(first, type_=UtcDateTime()).label("oldest_at"))
        .select_from(r.join(queues, waits(q) & _same(r.c, q)))
        .group_by(*_columns(q))
    )
    found = connection.execute(statement, encode(key._asdict() for key in keys))
    return {of(row): row.oldest_at for row in found if row.oldest_at is not None}


def waits(q: Any) -> ColumnElement[bool]:
    """The condition that something waits in a row of `queues`."""
    return or_(q.holder.is_not(None), q.wake_at.is_not(None))


def _same(one: Any, other: Any) -> Any:
    tenant, program_id, lane = (one[name] == other[name] for name in _KEY)
    return tenant & program_id & lane


def repair(connection: Connection, after: Counted | None, limit: int) -> tuple[Counted | None, int]:
    """Compare some counts with the rows, and correct them. A net: it finds what older workers have moved.

    A queue that is deeper than `DEEPEST` is left until it is shorter. Counts of which nothing waits and nothing has
    moved for `KEPT_PERIODS` are deleted. Any number of callers may do this at once.

    Args:
        after: look at up to `limit` behind this one, in the order of the key; None: begin anew.

    Returns:
        The last one that it has looked at; None: there are no more. And how many it has corrected.
    """
    keys, parameters = _next(connection, after, limit)
    if not keys:
        return None, 0
    connection.execute(_begin_counts(connection.dialect.name, upsert(connection)), parameters)
    r, c = records(connection.dialect.name, _KEY), queue_counts.c
    which = select(*_columns(r.c))
    # Who holds these rows is the only one who corrects them. A new statement then sees what was corrected before.
    mine = select(*_columns(c)).where(tuple_(*_columns(c)).in_(which)).with_for_update(skip_locked=True)
    parameters = encode(of(row)._asdict() for row in connection.execute(mine, parameters))
    wrong = {of(row): row.there - row.counted for row in connection.execute(_compared(r), parameters)}
    moved(connection, {key: n for key, n in wrong.items() if n > 0}, {key: -n for key, n in wrong.items() if n < 0})
    idle = (c.waiting == 0) & (c.period < period_of(clock(connection)) - KEPT_PERIODS)
    connection.execute(delete(queue_counts).where(tuple_(*_columns(c)).in_(which), idle), parameters)
    return keys[-1] if len(keys) == limit else None, len(wrong)


def _next(connection: Connection, after: Counted | None, limit: int) -> tuple[list[Counted], dict[str, str]]:
    """The next ones by key, of those that are counted and of the queues in which something waits."""
    found = set[Counted]()
    for table, condition in ((queue_counts, true()), (queues, waits(queues.c))):
        key = _columns(table.c)
        looked = select(*key).where(condition).distinct().order_by(*key).limit(limit)
        if after is not None:
            looked = looked.where(tuple_(*key) > tuple_(*(literal(v, k.type) for v, k in zip(after, key, strict=True))))
        found |= {of(row) for row in connection.execute(looked)}
    keys = sorted(found, key=lambda key: (key.tenant, key.program_id.int, key.lane))[:limit]
    return keys, encode(key._asdict() for key in keys)


def _begin_counts(dialect: str, insert: Any) -> Any:
    """Inserts a row for those that have none and in which something waits."""
    r = records(dialect, _KEY)
    there = exists(select(queues.c.tenant).where(waits(queues.c), _same(r.c, queues.c)))
    numbers = ("waiting", "period", "came", "went")
    rows = select(*_columns(r.c), *(literal(0) for _ in numbers), NOW).where(there).order_by(*_columns(r.c))
    statement = insert(queue_counts).from_select([*_KEY, *numbers, "moving_since"], rows)
    return statement.on_conflict_do_nothing(index_elements=list(queue_counts.primary_key))


def _compared(r: Any) -> Any:
    """Those of which another number waits than is counted, by one statement: it sees one moment."""
    c, counted = executions.c, queue_counts.c
    waiting = select(c.id).where(PENDING, _same(c, r.c), c.run_at.is_not(None)).limit(DEEPEST + 1).correlate(r)
    there = select(func.count()).select_from(waiting.subquery()).scalar_subquery()
    m = queue_moves.c
    moving = select(func.coalesce(func.sum(m.came - m.went), 0)).where(_same(m, r.c)).scalar_subquery()
    both = (
        select(*_columns(r.c), there.label("there"), (counted.waiting + moving).label("counted"))
        .select_from(r.join(queue_counts, _same(r.c, counted)))
        .subquery("both")
    )
    b = both.c
    return select(*b).where(b.there != b.counted, b.there <= DEEPEST, b.counted <= DEEPEST)
