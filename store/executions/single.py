"""Operations on one execution by its id: create, cancel, and the transitions of a caller that runs it itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, case, null, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from dspex import ErrorDetail, ExecutionStatus, Usage
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.ids import DEFAULT_TENANT
from store.database.batch import encode, upsert
from store.executions import statements
from store.executions.rows import (
    Claimed,
    Ended,
    Execution,
    Finish,
    Lease,
    NoProgram,
    Request,
    execution_of,
    request_of,
    request_row,
)
from store.executions.statements import IS_EXTERNAL, OPEN, PENDING
from store.executions.timeline import CANCEL_REQUESTED, continued
from store.executions.transitions import claim, finish
from store.executions.unrun import count_and_tell
from store.executions.waiting import wait
from store.queues.keys import NEVER_SECONDS, key_of
from store.tables import NOW, executions


def create(connection: Connection, request: Request, *, due_in: float | None = 30.0) -> Execution:
    """Insert a pending execution. The same request again changes nothing, even if the execution has ended.

    Args:
        due_in: seconds until the relay publishes it, if no worker has claimed it by then. None: it waits in its queue,
            which is offered.

    Raises:
        NotFound: there is no such program.
        Conflict: the id belongs to another request.
    """
    queued = due_in is None
    statement = statements.create(connection.dialect.name, upsert(connection), queued=queued)
    given = {"due_in": NEVER_SECONDS if due_in is None else due_in, "by": request.source}
    created = connection.execute(statement, encode([request_row(request)]) | given).all()
    c = executions.c
    row = connection.execute(select(executions).where(c.id == request.id, c.tenant == request.tenant)).one_or_none()
    if row is None:
        raise NotFound(f"program_id: there is no program {request.program_id}")
    if row.request_digest != request.digest:
        raise Conflict(f"execution_id: {request.id} belongs to another request")
    if queued and created:
        wait(connection, [(key_of(row), row.run_at)])
    return execution_of(row)


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
        row = connection.execute(cancelling(this, by)).one_or_none()
        if row is None:
            status = ExecutionStatus(_row(connection, execution_id, tenant).status)
            if status.terminal:
                raise IllegalTransition(f"execution {execution_id} cannot be cancelled: it is {status}")
            # It was created at the same moment.
    if row.status == ExecutionStatus.CANCELLED:
        count_and_tell(connection, [row], shard=shard, event_in=event_in, webhook_in=webhook_in)
    return execution_of(row)


_NEVER_RAN = PENDING & executions.c.started_at.is_(null())
_AT_ONCE = or_(PENDING, IS_EXTERNAL)


def cancelling(which: ColumnElement[bool], by: str) -> ReturningUpdate[Any]:
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


def mark_running(connection: Connection, execution_id: UUID, lease: Lease, *, tenant: str = DEFAULT_TENANT) -> Claimed:
    """Claim an existing execution.

    Raises:
        NotFound: there is no such execution, or its program is gone.
        IllegalTransition: it is running, or has ended.
    """
    # Locked, for a claim passes over a row that another looks at.
    row = _row(connection, execution_id, tenant, lock=True)
    match claim(connection, lease, [request_of(row)]):
        case [Claimed() as claimed]:
            return claimed
        case [NoProgram()]:
            raise NotFound(f"program_id: there is no program {row.program_id}")
        case [Ended(execution=execution)]:
            status = execution.status
        case _:
            status = ExecutionStatus.RUNNING
    raise IllegalTransition(f"execution {execution_id} cannot run: it is {status}")


def mark_completed(
    connection: Connection,
    execution_id: UUID,
    outputs: Mapping[str, Any],
    duration_ms: float,
    *,
    usage: Usage | None = None,
    lock_version: int | None = None,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
) -> Execution:
    """End a running execution with outputs, and count it.

    Args:
        lock_version: the claimed one, so that the call fails if another worker has claimed it since. None: the current
            one.

    Raises:
        NotFound: there is no such execution.
        IllegalTransition: it is not running, or was claimed again.
    """
    row = _held(connection, execution_id, tenant, lock_version, ExecutionStatus.COMPLETED)
    end = Finish(row.id, row.program_id, row.lock_version, duration_ms, usage or Usage(), outputs, tenant=tenant)
    finish(connection, shard, [end])
    return execution_of(_row(connection, execution_id, tenant))


def mark_failed(
    connection: Connection,
    execution_id: UUID,
    error: ErrorDetail,
    duration_ms: float,
    *,
    usage: Usage | None = None,
    lock_version: int | None = None,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
) -> Execution:
    """End a running execution with an error, and count it. Arguments and exceptions are those of `mark_completed`."""
    row = _held(connection, execution_id, tenant, lock_version, ExecutionStatus.FAILED)
    end = Finish(row.id, row.program_id, row.lock_version, duration_ms, usage or Usage(), error=error, tenant=tenant)
    finish(connection, shard, [end])
    return execution_of(_row(connection, execution_id, tenant))


def _held(
    connection: Connection, execution_id: UUID, tenant: str, lock_version: int | None, to: ExecutionStatus
) -> Row[Any]:
    """Lock and return the row, if the execution may end."""
    row = _row(connection, execution_id, tenant, lock=True)
    if row.status == ExecutionStatus.RUNNING and lock_version in (None, row.lock_version):
        return row
    reason = "it was claimed again" if row.status == ExecutionStatus.RUNNING else f"it is {row.status}"
    raise IllegalTransition(f"execution {execution_id} cannot become {to}: {reason}")


def _row(connection: Connection, execution_id: UUID, tenant: str, *, lock: bool = False) -> Row[Any]:
    c = executions.c
    statement = select(executions).where(c.id == execution_id, c.tenant == tenant)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise NotFound(f"execution_id: there is no execution {execution_id}")
    return row
