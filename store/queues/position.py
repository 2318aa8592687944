"""What a waiting execution waits for, and about how long: by its place in its queue, never by counting a long one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    true,
)

from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT
from store.gates.rows import EVERYTHING, LANE, GateKey
from store.queues import figures
from store.queues.counts import period_of
from store.queues.figures import By
from store.queues.register import served, services_of, unregistered
from store.queues.services import NEEDS, Needs, missing, needed
from store.queues.unserved import LATE_SECONDS
from store.statuses import PENDING
from store.tables import NOW, executions, gates, programs, queues

MOST_COUNTED: Final = 1_000
"""So many that are ahead are counted; of more it is estimated how many there are."""

_QUEUE: Final = ("tenant", "program_id", "lane", "group_key")


class Reason(StrEnum):
    """What a waiting execution waits for."""

    PLACE = "place"
    NOT_BEFORE = "not_before"
    RETRY = "retry"
    PAUSED = "paused"
    LIMIT = "limit"


@dataclass(frozen=True)
class Position:
    """Where a waiting execution is.

    Attributes:
        since: when it became pending.
        gate: what holds its queue: the key of a gate.
        ahead: how many of its queue come first, about.
        expected_seconds: until it runs, about. None: nothing of its program and lane has gone for a minute.
        unserved: what no live worker serves of it.
    """

    since: datetime
    lane: Lane
    reason: Reason
    gate: str | None = None
    ahead: int | None = None
    expected_seconds: float | None = None
    unserved: str | None = None


def position(connection: Connection, execution_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Position | None:
    """Where an execution waits. None: it does not wait for a worker. Two statements, for a client that polls."""
    which = {"execution_id": execution_id, "its_tenant": tenant}
    row = connection.execute(_where_it_waits(connection.dialect.name), which).one_or_none()
    if row is None:
        return None
    lane = tuple(Lane)[row.lane]
    if row.run_at > row.now:
        reason = Reason.RETRY if row.attempt else Reason.NOT_BEFORE
        return Position(row.updated_at, lane, reason, expected_seconds=(row.run_at - row.now).total_seconds())
    gate, paused = _gate(row, lane)
    reason = Reason.PLACE if gate is None else Reason.PAUSED if paused else Reason.LIMIT
    unserved = None
    if gate is None and (row.now - row.run_at).total_seconds() > LATE_SECONDS:
        unserved = missing(services_of(row.served), Needs(row.lane, row.program_id, row.adapter, row.environment))
    place = {f"its_{name}": getattr(row, name) for name in (*_QUEUE, "run_at")}
    limits = {"most": MOST_COUNTED, "period": period_of(row.now)}
    around = connection.execute(_around(ask=unserved is not None), place | limits).one()
    if around.others:
        unserved = None
    ahead, speed = _ahead(row, around), figures.figures_of(around, row.now)
    expected = None
    if not paused and unserved is None and speed.went_per_minute:
        expected = (ahead + 1) / speed.went_per_minute * 60
    return Position(row.updated_at, lane, reason, gate, ahead, expected, unserved)


# Both statements are built once: to build them takes five times the CPU of the rest.


@lru_cache(maxsize=2)
def _where_it_waits(dialect: str) -> Any:
    """The execution, with its queue, what is paused above it, what it needs, and what is served.

    Parameters: `execution_id`, `its_tenant`.
    """
    c = executions.c
    lanes = {lane.number: GateKey(LANE, lane).text for lane in Lane}
    keys = {
        "queue_paused": queues.c.holder,
        "all_paused": literal(GateKey(EVERYTHING).text),
        "lane_paused": case(lanes, value=c.lane),
    }
    paused = {name: exists(select(gates.c.key).where(gates.c.key == key, gates.c.paused)) for name, key in keys.items()}
    needs = dict(zip(NEEDS, needed(c.lane, c.program_id), strict=True))
    return (
        select(
            *(c[name] for name in _QUEUE),
            *(c.run_at, c.attempt, c.updated_at, queues.c.holder, NOW.label("now")),
            *(condition.label(name) for name, condition in paused.items()),
            *(needs[name].label(name) for name in ("adapter", "environment")),
            served(dialect).label("served"),
        )
        .select_from(
            executions.outerjoin(queues, _same(c, queues.c)).outerjoin(
                programs, and_(programs.c.id == c.program_id, programs.c.tenant == c.tenant)
            )
        )
        .where(
            c.id == bindparam("execution_id", type_=c.id.type),
            c.tenant == bindparam("its_tenant", type_=c.tenant.type),
            PENDING,
            c.run_at.is_not(None),
        )
    )


def _same(one: Any, other: Any) -> Any:
    return and_(*(one[name] == other[name] for name in _QUEUE))


def _gate(row: Any, lane: Lane) -> tuple[str | None, bool]:
    """What holds its queue, and whether that is a pause. Of everything and of a lane, only pauses hold."""
    if row.queue_paused:
        return row.holder, True
    if row.all_paused:
        return GateKey(EVERYTHING).text, True
    if row.lane_paused:
        return GateKey(LANE, lane).text, True
    return row.holder or None, False


@lru_cache(maxsize=2)
def _around(*, ask: bool) -> Any:
    """How many of its queue may run before it, up to `most`, the times of the first and the last of them, and the
    figures of its program and lane. If asked, also whether others live than are registered.

    Parameters: `most`, `period`, and the members of its queue and its `run_at`, as `its_…`.
    """
    c = executions.c
    its = {name: bindparam(f"its_{name}", type_=c[name].type) for name in (*_QUEUE, "run_at")}
    here = [PENDING, *(c[name] == its[name] for name in _QUEUE)]
    before = select(c.id).where(*here, c.run_at < its["run_at"]).limit(bindparam("most", type_=Integer))
    place = select(
        select(func.count()).select_from(before.subquery()).scalar_subquery().label("ahead"),
        *(
            select(c.run_at).where(*here).order_by(order).limit(1).scalar_subquery().label(name)
            for name, order in (("first", c.run_at), ("last", c.run_at.desc()))
        ),
        (unregistered() if ask else literal(value=False)).label("others"),
    ).subquery("place")

    def of_it(c: Any) -> list[ColumnElement[bool]]:
        return [c[name] == its[name] for name in ("tenant", "program_id", "lane")]

    speed = figures.figures(By.LANE, of_it, bindparam("period", type_=BigInteger)).subquery("speed")
    return select(place, speed).select_from(place.outerjoin(speed, true()))


def _ahead(row: Any, around: Any) -> int:
    """How many of its queue may run before it: exact up to `MOST_COUNTED`, then as if they came evenly."""
    first, last = around.first, around.last
    if around.ahead < MOST_COUNTED or first is None or last is None:
        return int(around.ahead)
    share = (row.run_at - first) / (last - first) if last > first else 1.0
    return max(MOST_COUNTED, round((int(around.waiting or 0) - 1) * share))
