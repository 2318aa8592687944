"""Ends what waits of archived programs: at once, in batches, with the code `program_archived`."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, literal, literal_column, null, select, update

from dspex import ErrorCode, ErrorDetail, ExecutionStatus
from store.database.identity import is_found
from store.executions.rows import Execution, execution_of
from store.executions.statements import PENDING
from store.executions.timeline import continued
from store.executions.unrun import count_and_tell
from store.queues.archived import ARCHIVED
from store.queues.keys import KEY
from store.tables import NOW, executions, queues

BY = "archive"
"""Who ends them, in the timeline."""
ERROR = ErrorDetail(
    code=ErrorCode.PROGRAM_ARCHIVED,
    message="its program was archived while it waited: restore the program and replay it, if it shall run",
)

_kept = {"code": ERROR.code, "message": ERROR.message, "problems": list[str]()}
_HELD = queues.c.holder == literal_column(f"'{ARCHIVED}'")


def anything_held(connection: Connection) -> bool:
    """Whether something waits of an archived program, perhaps. Locks nothing."""
    return bool(connection.execute(select(exists(select(queues.c.tenant).where(_HELD)))).scalar_one())


class Ended(NamedTuple):
    """What was ended, and whether there may be more to do now."""

    executions: list[Execution]
    more: bool


def end_waiting(
    connection: Connection, shard: int, limit: int, *, event_in: float = 30.0, webhook_in: float = 0.0
) -> Ended:
    """End up to `limit` executions that wait in one queue of an archived program: failed, or cancelled where that was
    asked for. When none is left, the queue is held no more.

    Any number of callers may do this at once; it waits for no row of an execution.

    Args:
        shard, event_in, webhook_in: see `store.executions.transitions.finish`.
    """
    c, q = executions.c, queues.c
    queue = connection.execute(select(*(q[name] for name in KEY)).where(_HELD).limit(1)).one_or_none()
    if queue is None:
        return Ended([], more=False)
    # What has no `run_at` is run by a service itself, or was left by a worker from before queues.
    waits = and_(PENDING, c.run_at.is_not(None), *(c[name] == getattr(queue, name) for name in KEY))
    # Seen by the same statement: what was accepted after the program was restored is left alone.
    still = exists(select(q.tenant).where(_HELD, *(q[name] == getattr(queue, name) for name in KEY)))
    most: ColumnElement[int] = literal_column(str(int(limit)))  # part of the text, as in `store.executions.leases`
    held = select(c.id, c.tenant).where(waits, still).limit(most).with_for_update(skip_locked=True)
    status = case((c.cancel_requested, ExecutionStatus.CANCELLED), else_=ExecutionStatus.FAILED)
    never_ran = c.started_at.is_(None)
    rows = connection.execute(
        update(executions)
        .where(is_found(executions, held))
        .values(
            status=status,
            error_code=case((c.cancel_requested, c.error_code), else_=ERROR.code),
            error=case((c.cancel_requested, c.error), else_=literal(_kept, c.error.type)),
            # The usage is 0 if it never ran.
            **{name: case((never_ran, 0), else_=c[name]) for name in ("input_tokens", "output_tokens", "cost")},
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            due_at=null(),
            finished_at=NOW,
            updated_at=NOW,
            timeline=continued(c.timeline, status, c.attempt, BY),
        )
        .returning(*c)
    ).all()
    count_and_tell(connection, rows, shard=shard, event_in=event_in, webhook_in=webhook_in)
    let_go = len(rows) < limit and _let_go(connection, queue, waits)
    return Ended([execution_of(row) for row in rows], more=bool(rows) or let_go)


def _let_go(connection: Connection, queue: Row[tuple[object, ...]], waits: ColumnElement[bool]) -> bool:
    """Hold a queue no more in which nothing waits. As the last thing of the transaction, like an offer.

    Returns whether it was let go.
    """
    q = queues.c
    this = [q[name] == getattr(queue, name) for name in KEY]
    locked = select(q.tenant).where(*this, _HELD).with_for_update(skip_locked=True)
    if connection.execute(locked).one_or_none() is None:
        return False
    # In a statement of its own, which sees what was offered before the lock.
    if connection.execute(select(exists(select(executions.c.id).where(waits)))).scalar_one():
        return False
    connection.execute(update(queues).where(*this).values(holder=null(), wake_at=null()))
    return True
