"""Choose: who has a free place takes the next executions that wait, from the queues whose turn it is.

The queues are found and shared by `store.queues`; here their executions are taken. A queue that gave fewer than it was
asked for is looked at again, and marked when nothing in it may run: it is found again when somebody offers it, or when
its time has come (`wake`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    String,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    null,
    select,
    true,
    tuple_,
    update,
)

from store import gates
from store.column_types import UtcDateTime, database_now, statement_now
from store.database.batch import encode, execute, records
from store.database.identity import Identity, is_one_of
from store.executions.claims import Claimed, Lease, ToRunAlone, claim_of
from store.executions.rows import KEPT, Request, request_of
from store.executions.statements import ALONE_AT, PENDING, READY_BACKEND, claimed_columns, claimed_values, last_chance
from store.executions.waiting import wait_no_more
from store.gates import KnownGates, Subject
from store.gates.known import CHANGED_AT
from store.queues.finding import find
from store.queues.keys import KEY, KEY_TYPES, READY, QueueKey, key_of
from store.queues.offers import tell
from store.queues.turns import Ask, Turns
from store.tables import executions, programs, queues

ROUNDS = 3
"""How often a choice shares the places that are left among further queues."""
ALONE_SECONDS = 5.0
"""For so long, one that is to run alone is left to the process that has found it."""
AT_ONCE = 500
"""How many queues are woken in one statement."""


class Chosen(NamedTuple):
    """An execution that was taken; or, if it is `ToRunAlone`, one to be claimed when nothing else runs."""

    request: Request
    claim: Claimed | ToRunAlone


class Choice(NamedTuple):
    """What was chosen, and whether more may wait that could run now."""

    chosen: list[Chosen]
    more: bool


def choose(
    connection: Connection,
    lease: Lease,
    places: int,
    turns: Turns,
    *,
    alone_at: int,
    only: str | None = None,
    known: KnownGates | None = None,
) -> Choice:
    """Take up to so many executions that wait, for a worker with so many free places.

    Any number of callers may do this concurrently: they take different executions.

    Args:
        turns: whose turn it is; of this process.
        alone_at: see `claim`. Those at their last chance are `ToRunAlone`, and left for a moment.
        only: only those of this worker (`store.executions.ownership`).
        known: the gates that this process knows; None: there is none.
    """
    if known is not None and known.stopped:
        return Choice([], more=False)
    turns.leave_out(known.lanes_paused if known is not None else frozenset())
    passing = gates.Choice(connection, known) if known else None
    chosen: list[Chosen] = []
    all_found = left_ready = False
    for _ in range(ROUNDS):
        left = places - len(chosen)
        kept = turns.fresh
        if not kept:
            find(connection, turns, left, [READY, *(gates.with_room(connection, known, left) if known else ())])
        asked = turns.share(left)
        if not asked and (all_found or not kept):
            return Choice(chosen, more=left_ready or (passing is not None and passing.begins))
        if not asked:
            turns.forget()  # further queues may have become ready
            continue
        all_found = not kept and len(asked) < left
        if passing is not None:
            asked = _admitted(passing, asked, turns)
        taken = _take(connection, lease, asked, alone_at, only, known) if asked else []
        if asked and not taken and known is not None and known.refresh(connection, anyway=True):
            turns.forget()
            return Choice(chosen, more=True)
        chosen += [Chosen(request_of(row), _claimed(row)) for row in taken]
        if passing is not None:
            passing.taken((Subject(*key_of(row)), Identity(row.id, row.tenant), row.lock_version) for row in taken)
        wait_no_more(connection, [key_of(row) for row in taken])
        short = _short_of(asked, taken, turns)
        if passing is not None and short:
            all_found = False  # what a gate holds may have room, as these gave fewer than they were let
        chosen += _alone(connection, short, alone_at, only)
        # Else nobody would be told of what is just being offered there. What is left to others stays anyway.
        left_ready |= _mark(connection, short) < len(short) and only is None
        if len(chosen) >= places:
            break
    return Choice(chosen, more=True)


def _admitted(passing: gates.Choice, asked: Sequence[Ask], turns: Turns) -> list[Ask]:
    """As many of each queue as its gates let begin. One with more that has to wait is left out until found again."""
    numbers = passing.admit([(Subject(*ask.queue), ask.places) for ask in asked])
    for ask, number in zip(asked, numbers, strict=True):
        if number < ask.places:
            turns.drop(ask.queue)
    return [ask._replace(places=number) for ask, number in zip(asked, numbers, strict=True) if number]


def _claimed(row: Any) -> Claimed:
    claim = claim_of(row)
    assert isinstance(claim, Claimed)  # noqa: S101 - it was made so
    return claim


def _short_of(asked: Sequence[Ask], taken: Sequence[Any], turns: Turns) -> list[QueueKey]:
    """The queues that gave fewer than they were asked for, from their beginning."""
    given: dict[QueueKey, int] = {}
    last: dict[QueueKey, Any] = {}
    for row in taken:
        key = key_of(row)
        given[key] = given.get(key, 0) + 1
        last[key] = max(row.run_at, last.get(key, row.run_at))
    short = []
    for ask in asked:
        if given.get(ask.queue, 0) < ask.places:
            if ask.since is None:
                short.append(ask.queue)
                turns.drop(ask.queue)
            else:
                turns.look_back(ask.queue)
        else:
            turns.took(ask.queue, last[ask.queue])
    return short


_ASKED = KEY_TYPES | {"places": Integer(), "since": UtcDateTime()}


def _take(
    connection: Connection,
    lease: Lease,
    asked: Sequence[Ask],
    alone_at: int,
    only: str | None,
    known: KnownGates | None,
) -> Sequence[Any]:
    given: dict[str, Any] = {"worker": lease.worker, "lease_seconds": lease.seconds, ALONE_AT: alone_at}
    if only is not None:
        given["only"] = only
    if known is not None:
        given["gates_at"] = known.changed_at
    dialect = connection.dialect.name
    taking = _taking(dialect, own=only is not None, gated=known is not None)
    if dialect == "postgresql":
        rows = [
            ask.queue._asdict() | {"places": ask.places, "since": None if ask.since is None else ask.since.isoformat()}
            for ask in asked
        ]
        return execute(connection, taking, given | encode(rows)).all()
    found: list[Any] = []
    for ask in asked:  # it has no LATERAL, and no locks
        places = {"places": ask.places} | {f"its_{name}": value for name, value in ask.queue._asdict().items()}
        found += connection.execute(taking, given | places).all()
    return found


@lru_cache(maxsize=8)
def _taking(dialect: str, *, own: bool, gated: bool) -> Any:
    """Takes the oldest executions of queues. Parameters: `records` of `Ask` (on SQLite, those of one), `worker`,
    `lease_seconds`, `ALONE_AT`; if `own`, also `only`; if `gated`, also `gates_at`: none if gates were changed since.
    """
    c, p = executions.c, programs.c
    postgres = dialect == "postgresql"
    r = records(dialect, _ASKED) if postgres else None
    where: list[ColumnElement[bool]] = [
        *(c[name] == (r.c[name] if r is not None else bindparam(f"its_{name}", type_=KEY_TYPES[name])) for name in KEY),
        PENDING,
        c.run_at <= statement_now(),
    ]
    if r is not None:
        where.append(c.run_at >= func.coalesce(r.c.since, literal_column("'-infinity'::timestamptz")))
    if own:
        where.append(c.worker == bindparam("only", type_=String))
    if gated:
        where.append(CHANGED_AT.is_not_distinct_from(bindparam("gates_at", type_=UtcDateTime)))
    oldest = select(c.id, c.tenant).where(*where, not_(_at_last_chance())).order_by(c.run_at)
    # By an outer join, so that a program that is gone does not leave its executions waiting.
    its = [READY_BACKEND.label("ready_backend"), p.policy, p.callback]
    if r is not None:
        each = oldest.limit(r.c.places).with_for_update(of=executions, skip_locked=True).correlate(r).lateral("each")
        found = r.outerjoin(programs, (p.id == r.c.program_id) & (p.tenant == r.c.tenant)).join(each, true())
        picked = select(each.c.id, each.c.tenant, *its).select_from(found).cte("picked")
    else:
        found = executions.outerjoin(programs, (p.id == c.program_id) & (p.tenant == c.tenant))
        picked = oldest.add_columns(*its).select_from(found).limit(bindparam("places", type_=Integer)).cte("picked")
    return (
        update(executions)
        .where(c.id == picked.c.id, c.tenant == picked.c.tenant)
        .values(**claimed_values(picked.c.ready_backend, picked.c.policy, picked.c.callback))
        .returning(*claimed_columns(), *(c[name] for name in _OF_REQUEST))
    )


_OF_REQUEST = [
    name for name in (*KEPT, "lane", "group_key", "run_at") if name not in {c.name for c in claimed_columns()}
]


def _at_last_chance() -> ColumnElement[bool]:
    """The condition of `last_chance`, without a join: a program that is gone allows the default."""
    c, p = executions.c, programs.c
    its = (p.id == c.program_id) & (p.tenant == c.tenant)
    policy = select(p.policy["max_attempts"].as_integer()).where(its).correlate(executions).scalar_subquery()
    return last_chance(policy)


def _alone(connection: Connection, short: Sequence[QueueKey], alone_at: int, only: str | None) -> list[Chosen]:
    """Those that are to run alone in these queues, which are left for a moment."""
    if not short:
        return []
    given = encode(key._asdict() for key in short) | {ALONE_AT: alone_at} | ({} if only is None else {"only": only})
    found = execute(connection, _lost(connection.dialect.name, own=only is not None), given).all()
    if not found:
        return []
    c = executions.c
    these = is_one_of(executions, [Identity(row.id, row.tenant) for row in found])
    later = database_now(bindparam("alone_in", ALONE_SECONDS, Float))
    left = update(executions).where(these).values(run_at=later).returning(*(c[name] for name in KEPT))
    return [Chosen(request_of(row), ToRunAlone(row.id)) for row in connection.execute(left)]


@lru_cache(maxsize=4)
def _lost(dialect: str, *, own: bool) -> Any:
    """Parameters: `records` of keys, `ALONE_AT`; if `own`, also `only`."""
    c, r = executions.c, records(dialect, KEY_TYPES)
    where = [PENDING, c.run_at <= statement_now(), c.lost > literal_column("0"), _at_last_chance()]
    if own:
        where.append(c.worker == bindparam("only", type_=String))
    of_queue = and_(*(c[name] == r.c[name] for name in KEY))
    found = select(c.id, c.tenant).join_from(r, executions, of_queue).where(*where)
    return found.limit(literal_column("8")).with_for_update(of=executions, skip_locked=True)


def _mark(connection: Connection, short: Collection[QueueKey]) -> int:
    """Mark those of these queues in which nothing may run now, unless another does, or somebody offers them.

    Returns:
        How many were marked; the others stay ready.
    """
    if not short:
        return 0
    dialect, keys = connection.dialect.name, encode(key._asdict() for key in sorted(short))
    if dialect == "postgresql":
        held = execute(connection, _holding(dialect), keys).all()
        if not held:
            return 0
        keys = encode(key_of(row)._asdict() for row in held)
    # In a statement of its own, so that it sees what was committed before the lock.
    return len(execute(connection, _marking(dialect), keys))


@lru_cache(maxsize=1)
def _holding(dialect: str) -> Any:
    q, r = queues.c, records(dialect, KEY_TYPES)
    its = and_(*(q[name] == r.c[name] for name in KEY))
    held = select(*(q[name] for name in KEY)).join_from(r, queues, its).where(q.holder.is_not(None))
    return held.order_by(*(q[name] for name in KEY)).with_for_update(of=queues, skip_locked=True)


@lru_cache(maxsize=2)
def _marking(dialect: str) -> Any:
    q, c, r = queues.c, executions.c, records(dialect, KEY_TYPES)
    of_queue = and_(*(c[name] == q[name] for name in KEY))
    first = select(func.min(c.run_at)).where(of_queue, PENDING).correlate(queues).scalar_subquery()
    its = tuple_(*(q[name] for name in KEY)).in_(select(*(r.c[name] for name in KEY)))
    return (
        update(queues)
        .where(its, q.holder.is_not(None), func.coalesce(first > statement_now(), true()))
        .values(holder=null(), wake_at=first)
        .returning(q.tenant)
    )


def wake(connection: Connection) -> int:
    """Make the queues ready in which something has become due. Returns how many; `AT_ONCE`: there may be more."""
    q = queues.c
    keys = [q[name] for name in KEY]
    asleep = select(*keys).where(q.holder.is_(None), q.wake_at <= statement_now()).order_by(*keys)
    due = asleep.limit(literal_column(str(AT_ONCE))).with_for_update(skip_locked=True)
    woken = update(queues).where(tuple_(*keys).in_(due)).values(holder=READY, wake_at=null()).returning(q.tenant)
    found = connection.execute(woken).all()
    if found:
        tell(connection)
    return len(found)


def anything_ready(connection: Connection) -> bool:
    """Whether a queue is ready. Locks nothing."""
    return bool(
        connection.execute(select(exists(select(queues.c.tenant).where(queues.c.holder == READY)))).scalar_one()
    )
