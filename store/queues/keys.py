"""What a queue is known by, and what a holder and a lane are called in a row."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.types import TypeEngine

from dspex.contract.options import Lane
from store.tables import queues

READY: Final = ""
"""The holder of a queue in which something may run now."""

NEVER_SECONDS: Final = 1000 * 365.25 * 86_400
"""In so many seconds an execution that waits in its queue is due: no relay of a version before queues publishes it."""

LANES: Final = tuple(lane.number for lane in Lane)


class QueueKey(NamedTuple):
    """The executions that wait of one tenant, program, lane and group. In the order of keys, queues are locked."""

    tenant: str
    program_id: UUID
    lane: int
    group_key: str = ""


FIRST: Final = QueueKey("", UUID(int=0), 0)
"""Before all queues, in the order of keys."""

KEY: Final = QueueKey._fields
KEY_TYPES: Final[dict[str, TypeEngine[Any]]] = {name: queues.c[name].type for name in KEY}


def key_of(row: Any) -> QueueKey:
    """The queue of an execution, or of a queue's row."""
    return QueueKey(row.tenant, row.program_id, row.lane, row.group_key)


class Swept(NamedTuple):
    """A look at some queues: the last one that was looked at (None: there are no more), and how many were mended, or
    deleted.
    """

    after: QueueKey | None
    number: int
