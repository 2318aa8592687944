"""What waits that no live worker serves: it would wait for ever, so somebody has to know."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, and_, exists, not_, or_, select, true

from dspex.contract.options import Lane
from store.column_types import database_now
from store.queues.counts import waits
from store.queues.figures import Scope
from store.queues.keys import KEY
from store.queues.register import Fleet
from store.queues.services import NEEDS, Needs, missing, needed
from store.statuses import PENDING
from store.tables import executions, programs, queues

LATE_SECONDS: Final = 5.0
"""What might have run for less time is not told of: a worker that does not register takes it within a second."""
MOST: Final = 1_000
"""So many queues are told of."""


class Unserved(NamedTuple):
    """What waits of a program in a lane, and what of it nobody serves: `lane bulk`."""

    tenant: str
    program_id: UUID
    lane: Lane
    missing: str


def unserved(connection: Connection, fleet: Fleet, scope: Scope) -> list[Unserved]:
    """What waits in vain, up to `MOST`; nothing, while others may live of which the register does not know.

    It costs nothing where a live worker serves everything, and else by the number of queues.
    """
    if not fleet.complete or any(not any(service) for service in fleet.services):
        return []
    q = queues.c
    columns = needed(q.lane, q.program_id)
    found = connection.execute(
        select(q.tenant, *(column.label(name) for column, name in zip(columns, NEEDS, strict=True)))
        .select_from(queues.outerjoin(programs, and_(programs.c.id == q.program_id, programs.c.tenant == q.tenant)))
        .where(
            waits(q),
            *scope.of(q),
            not_(or_(*(service.condition(columns) for service in fleet.services))) if fleet.services else true(),
            _is_late(),
        )
        .order_by(q.lane, q.tenant, q.program_id)
        .limit(MOST)
    )
    told = dict[tuple[str, UUID, int], str]()
    for row in found:
        needs = Needs(row.lane, row.program, row.adapter, row.environment)
        told[row.tenant, row.program, row.lane] = missing(fleet.services, needs) or ""
    return [Unserved(tenant, program_id, tuple(Lane)[lane], word) for (tenant, program_id, lane), word in told.items()]


def _is_late() -> Any:
    c, q = executions.c, queues.c
    here = [c[name] == q[name] for name in KEY]
    return exists(select(c.id).where(PENDING, *here, c.run_at < database_now(-LATE_SECONDS)))
