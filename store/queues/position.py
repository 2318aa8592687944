"""What a waiting execution waits for, and about how long: by its place in its queue, never by counting a long one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, and_, func, select

from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT
from store.gates.rows import EVERYTHING, LANE, GateKey
from store.queues import figures
from store.queues.counts import clock
from store.queues.figures import Scope
from store.statuses import PENDING
from store.tables import executions, queues

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
    """

    since: datetime
    lane: Lane
    reason: Reason
    gate: str | None = None
    ahead: int | None = None
    expected_seconds: float | None = None


def position(connection: Connection, execution_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Position | None:
    """Where an execution waits. None: it does not wait for a worker."""
    c = executions.c
    row = connection.execute(
        select(*(c[name] for name in _QUEUE), c.run_at, c.attempt, c.updated_at, queues.c.holder)
        .select_from(executions.outerjoin(queues, _same(c, queues.c)))
        .where(c.id == execution_id, c.tenant == tenant, PENDING, c.run_at.is_not(None))
    ).one_or_none()
    if row is None:
        return None
    now, lane = clock(connection), tuple(Lane)[row.lane]
    if row.run_at > now:
        reason = Reason.RETRY if row.attempt else Reason.NOT_BEFORE
        return Position(row.updated_at, lane, reason, expected_seconds=(row.run_at - now).total_seconds())
    gate, paused = _gate(connection, row, lane)
    reason = Reason.PLACE if gate is None else Reason.PAUSED if paused else Reason.LIMIT
    speed = figures.total(figures.lanes(connection, Scope(tenant, row.program_id, lane)))
    ahead = _ahead(connection, row, speed.waiting)
    expected = None
    if not paused and speed.went_per_minute:
        expected = (ahead + 1) / speed.went_per_minute * 60
    return Position(row.updated_at, lane, reason, gate, ahead, expected)


def _same(one: Any, other: Any) -> Any:
    return and_(*(one[name] == other[name] for name in _QUEUE))


def _gate(connection: Connection, row: Any, lane: Lane) -> tuple[str | None, bool]:
    """What holds its queue, and whether that is a pause. Of everything and of a lane, only pauses hold."""
    keys = [row.holder] if row.holder else []
    keys += [GateKey(EVERYTHING).text, GateKey(LANE, lane).text]
    paused = figures.paused(connection, keys)
    for key in keys:
        if key in paused:
            return key, True
    return row.holder or None, False


def _ahead(connection: Connection, row: Any, waiting: int) -> int:
    """How many of its queue may run before it: exact up to `MOST_COUNTED`, then as if they came evenly."""
    c = executions.c
    here = [c[name] == getattr(row, name) for name in _QUEUE]
    before = select(c.id).where(PENDING, *here, c.run_at < row.run_at).limit(MOST_COUNTED)
    ahead = connection.execute(select(func.count()).select_from(before.subquery())).scalar_one()
    if ahead < MOST_COUNTED:
        return ahead
    first, last = (
        connection.execute(select(c.run_at).where(PENDING, *here).order_by(order).limit(1)).scalar_one()
        for order in (c.run_at, c.run_at.desc())
    )
    share = (row.run_at - first) / (last - first) if last > first else 1.0
    return max(MOST_COUNTED, round((waiting - 1) * share))
