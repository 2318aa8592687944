"""Cancels executions: one, or many in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, case, null, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from dspex import ExecutionStatus
from dspex.errors import IllegalTransition, NotFound
from dspex.ids import DEFAULT_TENANT
from store.database.identity import Identity, is_one_of
from store.executions.rows import Execution, execution_of
from store.executions.statements import IS_EXTERNAL, OPEN, PENDING
from store.executions.timeline import CANCEL_REQUESTED, continued
from store.executions.unrun import count_and_tell
from store.tables import NOW, executions

MAX_CANCELS = 200
"""The most executions to cancel in one transaction, which are read whole, and whose events are sent together."""


def cancel(
    connection: Connection,
    execution_id: UUID,
    *,
    by: str,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
    event_in: float = 30.0,
    webhook_in: float = 0.0,
) -> Execution:
    """Cancel an execution: a pending one, and an external one, at once. One that a worker runs is marked, and its
    worker learns of it by the heartbeat.

    Repeating it changes nothing. If the worker dies, the next one to claim the execution sees the mark. Cancel only one
    execution in a transaction: several could deadlock with a batch that ends others of the same program.

    Args:
        by: who cancels, for the timeline.
        shard: the shard of the counters.
        event_in: seconds until the relay sends the event, if it was cancelled at once.
        webhook_in: seconds until its deliveries are due, if there are any.

    Returns:
        The execution: cancelled, or running with `cancel_requested`.

    Raises:
        NotFound: there is no such execution.
        IllegalTransition: it has ended.
    """
    row = None
    while row is None:
        this = (executions.c.id == execution_id) & (executions.c.tenant == tenant) & OPEN
        row = connection.execute(_cancelling(this, by)).one_or_none()
        if row is None:
            status = _status(connection, execution_id, tenant)
            if status.terminal:
                raise IllegalTransition(f"execution {execution_id} cannot be cancelled: it is {status}")
            # It was created at the same moment.
    if row.status == ExecutionStatus.CANCELLED:
        count_and_tell(connection, [row], shard=shard, event_in=event_in, webhook_in=webhook_in)
    return execution_of(row)


class Cancelled(NamedTuple):
    """What a transaction has cancelled.

    Attributes:
        executions: those that have ended now, and those that run and are asked to stop.
        locked: those that another transaction is just changing; cancel them one by one.
    """

    executions: list[Execution]
    locked: list[UUID]


def cancel_many(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    by: str,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
    event_in: float = 30.0,
    webhook_in: float = 0.0,
) -> Cancelled:
    """Cancel those of these executions that have not ended, each as `cancel` does.

    Waits for no row that is locked, so it cannot deadlock with a batch that ends others of the same program.
    """
    c = executions.c
    # Expressions that fit no index, so that each row is found by its id, as in `statements.finish`.
    unended = c.status.concat("").in_([ExecutionStatus.PENDING, ExecutionStatus.RUNNING])
    which = (c.id.in_(ids), c.tenant.concat("") == tenant, unended, ~c.cancel_requested)
    held = connection.execute(select(c.id, c.tenant).where(*which).order_by(c.id).with_for_update(skip_locked=True))
    # By their ids: PostgreSQL might join what a subquery finds with the whole table.
    these = is_one_of(executions, [Identity(*row) for row in held])
    rows = connection.execute(_cancelling(these, by)).all()
    ended = [row for row in rows if row.status == ExecutionStatus.CANCELLED]
    count_and_tell(connection, ended, shard=shard, event_in=event_in, webhook_in=webhook_in)
    # In a new statement, which sees what has been committed since.
    left = connection.execute(select(c.id).where(*which)).scalars().all()
    return Cancelled([execution_of(row) for row in rows], list(left))


_NEVER_RAN = PENDING & executions.c.started_at.is_(null())
_AT_ONCE = or_(PENDING, IS_EXTERNAL)


def _cancelling(which: ColumnElement[bool], by: str) -> ReturningUpdate[Any]:
    """The statement that cancels these, none of which has ended. It returns them."""
    c = executions.c
    entry = case((_AT_ONCE, ExecutionStatus.CANCELLED), else_=CANCEL_REQUESTED)
    return (
        update(executions)
        .where(which)
        .values(
            status=case((_AT_ONCE, ExecutionStatus.CANCELLED), else_=c.status),
            cancel_requested=True,
            # The usage is 0 if it never ran.
            **{name: case((_NEVER_RAN, 0), else_=c[name]) for name in ("input_tokens", "output_tokens", "cost")},
            lock_version=case((_AT_ONCE, c.lock_version + 1), else_=c.lock_version),
            lease_expires_at=case((_AT_ONCE, null()), else_=c.lease_expires_at),
            due_at=null(),
            finished_at=case((_AT_ONCE, NOW), else_=null()),
            updated_at=NOW,
            timeline=case(
                (_AT_ONCE | ~c.cancel_requested, continued(c.timeline, entry, c.attempt, by)), else_=c.timeline
            ),
        )
        .returning(*c)
    )


def _status(connection: Connection, execution_id: UUID, tenant: str) -> ExecutionStatus:
    c = executions.c
    found = select(c.status).where(c.id == execution_id, c.tenant == tenant)
    status = connection.execute(found).scalar_one_or_none()
    if status is None:
        raise NotFound(f"execution_id: there is no execution {execution_id}")
    return ExecutionStatus(status)
