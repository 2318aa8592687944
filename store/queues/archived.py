"""The queues of an archived program: nobody chooses from them.

The transaction that archives the program gives them a holder, by which what waits in them is found and ended, also
after a restart (`store.executions.archived`). What comes later waits there, too, or is chosen and fails by itself with
the same code.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, null, or_, select, tuple_, update

from store.queues.keys import KEY, READY
from store.queues.offers import tell
from store.tables import queues

ARCHIVED: Final = "archived"
"""The holder of a queue whose program is archived. No gate has this key: theirs have colons."""


def hold(connection: Connection, program_id: UUID, tenant: str) -> None:
    """Hold the queues of a program, in the transaction that archives it."""
    _give(connection, program_id, tenant, ARCHIVED)


def release(connection: Connection, program_id: UUID, tenant: str) -> None:
    """Let be chosen from the queues of a program again, in the transaction that restores it."""
    if _give(connection, program_id, tenant, READY):
        tell(connection)


def _give(connection: Connection, program_id: UUID, tenant: str, holder: str) -> int:
    """Give the queues of a program this holder. Returns how many."""
    c = queues.c
    key = [c[name] for name in KEY]
    held = c.holder == ARCHIVED if holder == READY else or_(c.holder.is_not(None), c.wake_at.is_not(None))
    # In the order of keys, in which everybody locks queues.
    found = select(*key).where(c.tenant == tenant, c.program_id == program_id, held).order_by(*key).with_for_update()
    statement = update(queues).where(tuple_(*key).in_(found)).values(holder=holder, wake_at=null()).returning(*key)
    return len(connection.execute(statement).all())
