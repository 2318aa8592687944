"""Finds queues that have a holder, in turn: the next tenants of each lane, and of each the next queues.

The index of holders is read by steps from one tenant to the next. So the cost is that of what is found, and does not
depend on how many queues there are, nor on how many of them are held elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from store.database.batch import encode, execute, records
from store.database.identity import Identity
from store.queues.keys import KEY_TYPES, READY, QueueKey
from store.queues.turns import Turns
from store.tables import queues

FEWEST: Final = 32
"""So many queues are looked for at least, as they are used again."""

FEWEST_PASSED: Final = 256
"""So many at least where a process serves some programs only, as others are passed over."""
PASSES: Final = 16
"""How often such a process looks further, where it has found nothing that it serves. The next look goes on there."""

HOLDERS: Final = "holders"
_RANGE: Final = {name: KEY_TYPES[name] for name in ("lane", "tenant", "program_id", "group_key")}


def find(connection: Connection, turns: Turns, places: int, holders: Sequence[str] = (READY,)) -> None:
    """Find as many queues as there are places, if there are so many, and hand them to `turns`.

    Args:
        holders: the holders of the queues.
    """
    turns.begin()
    lanes, restricted = list(turns.lanes), turns.restricted
    most = max(places, FEWEST_PASSED if restricted else FEWEST)
    for _ in range(PASSES if restricted else 1):
        lanes = _find(connection, turns, lanes, most, holders)
        if not lanes:
            return


def _find(connection: Connection, turns: Turns, lanes: Sequence[int], most: int, holders: Sequence[str]) -> list[int]:
    """Find queues of lanes. Returns the lanes in which nothing was found that is served, and there is more."""
    dialect = connection.dialect.name
    asked = []
    for lane in lanes:
        last = turns.after(lane)[0]
        asked += [{"lane": lane, "after": last, "until": None}, {"lane": lane, "after": "", "until": last}]
    held = encode(({"holder": holder} for holder in holders), HOLDERS)
    names: dict[int, list[str]] = {lane: [] for lane in lanes}
    for row in execute(connection, _tenants(dialect), encode(asked) | held | {"most": most}):
        names[row.lane].append(row.tenant)
    passed_over = []
    for lane, all_listed in names.items():
        listed = all_listed[:most]
        whole = len(listed) < most
        last, left = turns.after(lane)
        if left:  # it is still its turn
            listed = [last, *(name for name in listed if name != last)]
        each = -(-most // max(1, len(listed)))
        of_tenants = _queues_of(connection, turns, lane, listed, each, holders) if listed else {}
        all_of = {name for name in listed if len(of_tenants.get(name, [])) < each}
        if turns.restricted:
            of_tenants = _served(connection, turns, of_tenants)
            if listed and not any(of_tenants.values()) and not (whole and all_of.issuperset(listed)):
                turns.pass_over_tenants(lane, listed[-1])
                passed_over.append(lane)
        turns.found(lane, ((name, of_tenants.get(name, []), name in all_of) for name in listed), whole=whole)
    return passed_over


def _served(connection: Connection, turns: Turns, of_tenants: dict[str, list[QueueKey]]) -> dict[str, list[QueueKey]]:
    """Those of queues that this process serves. Where a tenant has none of them, the next ones are found next."""
    found = {Identity(queue.program_id, queue.tenant) for listed in of_tenants.values() for queue in listed}
    if turns.serving.by_program:
        found = turns.serving.served(connection, found) if found else set()
    served = {one for one in found if not turns.avoids(one.tenant, one.id)}
    kept = {
        tenant: [queue for queue in listed if Identity(queue.program_id, tenant) in served]
        for tenant, listed in of_tenants.items()
    }
    for tenant, listed in of_tenants.items():
        if listed and not kept[tenant]:
            turns.pass_over(listed[-1])
    return kept


def _queues_of(
    connection: Connection, turns: Turns, lane: int, tenants: Sequence[str], each: int, holders: Sequence[str]
) -> dict[str, list[QueueKey]]:
    """Of each tenant, up to `each` queues in turn."""
    asked = [
        {"lane": lane, "tenant": tenant, **turns.within(lane, tenant)._asdict(), "holder": holder}
        for tenant in tenants
        for holder in holders
    ]
    dialect = connection.dialect.name
    if dialect == "postgresql":
        rows = execute(connection, _queues(dialect), encode(asked) | {"each": each}).all()
    else:  # it has no LATERAL
        rows = [row for one in asked for row in execute(connection, _queues(dialect), one | {"each": each})]
    found: dict[str, list[QueueKey]] = {}
    for row in sorted(rows, key=lambda row: (row.behind, row.program_id, row.group_key)):
        found.setdefault(row.tenant, []).append(QueueKey(row.tenant, row.program_id, lane, row.group_key))
    return {tenant: listed[:each] for tenant, listed in found.items()}


@lru_cache(maxsize=2)
def _tenants(dialect: str) -> Any:
    """The next tenants of each lane. Parameters: `records`, of each lane two: those after one, and those from the first
    on until that one (`until`); `HOLDERS`; `most` of each.
    """
    r = records(dialect, {"lane": Integer(), "after": Text(), "until": Text()})
    h = records(dialect, {"holder": Text()}, HOLDERS)

    def following(lane: Any, after: Any) -> Any:
        q = queues.c  # the innermost reads one entry of the index
        of_holder = select(func.min(q.tenant)).where(q.holder == h.c.holder, q.lane == lane, q.tenant > after)
        first = select(func.min(of_holder.correlate(h, lane.table).scalar_subquery())).select_from(h)
        return first.correlate(lane.table).scalar_subquery()

    one: Any = literal_column("1")
    turn = select(r.c.lane, r.c.until, following(r.c.lane, r.c.after).label("tenant"), one.label("n")).cte(
        "turn", recursive=True
    )
    step = select(turn.c.lane, turn.c.until, following(turn.c.lane, turn.c.tenant), turn.c.n + one)
    turn = turn.union_all(step.where(turn.c.tenant.is_not(None), turn.c.n < bindparam("most", type_=Integer)))
    listed = or_(turn.c.until.is_(None), turn.c.tenant <= turn.c.until)
    return (
        select(turn.c.lane, turn.c.tenant)
        .where(turn.c.tenant.is_not(None), listed)
        .order_by(turn.c.lane, turn.c.until.is_not(None), turn.c.n)
    )


@lru_cache(maxsize=2)
def _queues(dialect: str) -> Any:
    """The next queues of tenants: of `records` with `holder`; on SQLite, of one, whose members are parameters."""
    types = _RANGE | {"holder": queues.c.holder.type}
    each = bindparam("each", type_=Integer)
    r = records(dialect, types) if dialect == "postgresql" else None
    asked: dict[str, Any] = {
        name: bindparam(name, type_=type_) if r is None else r.c[name] for name, type_ in types.items()
    }
    q = queues.c
    of_tenant = and_(*(q[name] == asked[name] for name in ("holder", "lane", "tenant")))
    place, cursor = tuple_(q.program_id, q.group_key), tuple_(asked["program_id"], asked["group_key"])

    def part(beyond: Any, behind: str) -> Any:
        place: Any = literal_column(behind)
        return (
            select(q.program_id, q.group_key, place.label("behind"))
            .where(of_tenant, beyond)
            .order_by(q.program_id, q.group_key)
            .limit(each)
        )

    parts = [part(place > cursor, "0"), part(place <= cursor, "1")]
    if r is not None:
        these = union_all(*(one.correlate(r).subquery().select() for one in parts)).lateral("found")
        return select(r.c.tenant, these.c.program_id, these.c.group_key, these.c.behind).join_from(r, these, true())
    both = union_all(*(select(one.subquery()) for one in parts)).subquery("found")
    return select(asked["tenant"].label("tenant"), both.c.program_id, both.c.group_key, both.c.behind)
