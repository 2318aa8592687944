"""External executions: a service runs them itself and marks them, fenced by the version that it was told.

No worker of any version takes such a row. Its digest is that of no request to execute (`rows.EXTERNAL`), so no claim
matches it. While it is pending it is due in a thousand years, so no relay publishes it. While it runs, `due_at` is the
end of its lease, and `lease_expires_at` is NULL, so it is never rescued, but ended here (`end_expired`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    bindparam,
    case,
    exists,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from dspex import ErrorCode, ErrorDetail, ExecutionStatus, Usage
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.ids import DEFAULT_TENANT
from store.column_types import Json, database_now, seconds_until, statement_now
from store.database.batch import encode, upsert
from store.executions import blobs, statements
from store.executions.idempotency import Holder, Key, take
from store.executions.rows import Execution, Finish, Request, execution_of, external_digest, request_row
from store.executions.statements import IS_EXTERNAL, OPEN, PENDING, RUNNING
from store.executions.timeline import continued
from store.executions.transitions import finish_and_read
from store.tables import NOW, executions, programs

UNKNOWN = Usage(input_tokens=None, output_tokens=None)
"""The usage of an execution whose service did not tell it."""

_RUNS = RUNNING & executions.c.lease_expires_at.is_(None) & IS_EXTERNAL
# A worker of the version before, asked to cancel one that runs, sets `due_at` to NULL and leaves the end to its worker.
_EXPIRED = _RUNS & or_(executions.c.due_at.is_(None), executions.c.due_at < statement_now())


@dataclass(frozen=True)
class Mark:
    """A mark by the service that runs an execution.

    Attributes:
        lock_version: that of the execution as the service knows it.
        digest: of the whole mark; the last one is kept with the row, so that a repeated mark is known.
        by: who marks, for the column `worker` and the timeline.
    """

    execution_id: UUID
    lock_version: int
    digest: str
    by: str
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True)
class Result:
    """What a service tells of its run: outputs or an error. `duration_ms`: None: since it was marked running."""

    outputs: Mapping[str, Any] | None = None
    extra_outputs: Mapping[str, Any] = field(default_factory=dict)
    error: ErrorDetail | None = None
    usage: Usage = UNKNOWN
    duration_ms: float | None = None


class Marked(NamedTuple):
    """The execution, and whether this mark ended it; else the same mark did before."""

    execution: Execution
    ended: bool


def create(connection: Connection, request: Request) -> Execution:
    """Insert an external execution, pending. The same request again changes nothing, whatever has become of it.

    Raises:
        NotFound: there is no such program.
        Conflict: the id, or the idempotency key, belongs to another request.
    """
    digest = external_digest(request)
    execution_id = request.id
    if request.idempotency_key is not None:
        key = Key(request.tenant, request.idempotency_key)
        holder = take(connection, [(key, Holder(request.id, digest))])[key]
        if holder.request_digest != digest:
            raise Conflict(f"idempotency_key: '{key.key}' belongs to another request")
        execution_id = holder.execution_id
    if execution_id == request.id:
        statement = statements.create(connection.dialect.name, upsert(connection))
        row = request_row(request) | {"request_digest": digest}
        connection.execute(statement, encode([row]) | {"by": request.source})
    found = _read(connection, execution_id, request.tenant)
    if found is None:
        raise NotFound(f"program_id: there is no program {request.program_id}")
    if found.request_digest != digest:
        raise Conflict(f"execution_id: {request.id} belongs to another request")
    blobs.keep(connection, {found.identity: blobs.digests_in(request.inputs)})
    return found


def mark_running(connection: Connection, mark: Mark, seconds: float) -> Execution:
    """pending → running for some seconds; of one that runs, renew these, under the same `lock_version`.

    Raises:
        NotFound: there is no such execution.
        Conflict: another version, it has ended or was cancelled, or workers run it.
    """
    c, p = executions.c, programs.c
    callback = select(p.callback).where(p.id == c.program_id, p.tenant == c.tenant).scalar_subquery()
    begun = {
        "attempt": 1,
        "lock_version": c.lock_version + 1,
        "worker": mark.by,
        "started_at": NOW,
        "program_callback": callback,
        "carried": _last(mark),
        "timeline": continued(c.timeline, ExecutionStatus.RUNNING, 1, mark.by),
    }
    changed = connection.execute(
        update(executions)
        .where(_is_marked(mark), OPEN)
        .values(
            status=ExecutionStatus.RUNNING,
            due_at=database_now(bindparam("seconds", seconds, Float)),
            updated_at=NOW,
            **{name: case((PENDING, value), else_=c[name]) for name, value in begun.items()},
        )
        .returning(*c)
    ).one_or_none()
    return _again(connection, mark) if changed is None else execution_of(changed)


def end(
    connection: Connection, mark: Mark, result: Result, *, shard: int, event_in: float = 30.0, webhook_in: float = 0.0
) -> Marked:
    """running → completed or failed; counted, and told of, like any end.

    Args:
        shard, event_in, webhook_in: see `store.executions.transitions.finish`.

    Raises:
        NotFound: there is no such execution.
        Conflict: another version, it has ended or was cancelled, or workers run it.
        IllegalTransition: it was not marked running.
    """
    c = executions.c
    held = connection.execute(
        update(executions)
        .where(_is_marked(mark), RUNNING)
        .values(carried=_last(mark))
        .returning(c.program_id, (-seconds_until(c.started_at)).label("ran"))
    ).one_or_none()
    if held is None:
        return Marked(_again(connection, mark), ended=False)
    finish = Finish(
        mark.execution_id,
        held.program_id,
        mark.lock_version,
        max(0.0, held.ran * 1000) if result.duration_ms is None else result.duration_ms,
        result.usage,
        result.outputs,
        result.error,
        tenant=mark.tenant,
        answered=True,
        extra_outputs=result.extra_outputs,
    )
    # The row is locked, so nothing else has ended it.
    [(_, execution)] = finish_and_read(connection, shard, [finish], event_in=event_in, webhook_in=webhook_in)
    return Marked(cast(Execution, execution), ended=True)


def anything_expired(connection: Connection) -> bool:
    """Whether the lease of an external execution has run out. Locks nothing."""
    return bool(connection.execute(select(exists(select(executions.c.id).where(_EXPIRED)))).scalar_one())


def end_expired(
    connection: Connection, shard: int, limit: int, *, event_in: float = 30.0, webhook_in: float = 0.0
) -> list[Execution]:
    """End those whose lease has run out: failed with `lease_expired`, or cancelled where that was asked for.

    Skips rows that are locked, as their service is just marking them.

    Args:
        shard, event_in, webhook_in: see `store.executions.transitions.finish`.

    Returns:
        The ended executions, up to `limit`.
    """
    c = executions.c
    columns = (c.id, c.tenant, c.program_id, c.lock_version, c.cancel_requested)
    most: ColumnElement[int] = literal_column(str(int(limit)))  # part of the text, as in `store.executions.leases`
    found = connection.execute(select(*columns).where(_EXPIRED).limit(most).with_for_update(skip_locked=True))
    late = ErrorDetail(
        code=ErrorCode.LEASE_EXPIRED,
        message="the service that runs it neither ended nor renewed it in time: see expires_in of mark_running",
    )
    ends = [
        Finish(
            row.id,
            row.program_id,
            row.lock_version,
            None,
            UNKNOWN,
            error=None if row.cancel_requested else late,
            cancelled=row.cancel_requested,
            tenant=row.tenant,
            answered=True,
        )
        for row in found
    ]
    done = finish_and_read(connection, shard, ends, event_in=event_in, webhook_in=webhook_in)
    return [execution for _, execution in done if execution is not None]


def _is_marked(mark: Mark) -> ColumnElement[bool]:
    """The condition that a row may be marked so, whatever its status."""
    c = executions.c
    return (
        (c.id == mark.execution_id)
        & (c.tenant == mark.tenant)
        & (c.lock_version == mark.lock_version)
        & IS_EXTERNAL
        & ~c.cancel_requested
    )


def _last(mark: Mark) -> ColumnElement[Any]:
    return literal({"mark": mark.digest}, Json)


def _again(connection: Connection, mark: Mark) -> Execution:
    """The execution, if this very mark was made before; else say why it cannot be made."""
    c = executions.c
    row = connection.execute(select(executions).where(c.id == mark.execution_id, c.tenant == mark.tenant)).one_or_none()
    if row is None:
        raise NotFound(f"execution_id: there is no execution {mark.execution_id}")
    found, name = execution_of(row), f"execution {mark.execution_id}"
    if not found.external:
        raise Conflict(f"{name} is run by workers: only what create_execution made can be marked")
    if row.carried == {"mark": mark.digest} and found.lock_version == mark.lock_version + 1:
        return found
    if found.status.terminal:
        raise Conflict(f"{name} is {found.status} (lock_version {found.lock_version}): it takes no more marks")
    if found.lock_version != mark.lock_version:
        raise Conflict(f"lock_version: {mark.lock_version} is not that of {name} now: it is {found.lock_version}")
    if found.cancel_requested:
        raise Conflict(f"{name} was cancelled: it takes no more marks")
    raise IllegalTransition(f"{name} cannot end: it is {found.status}; mark it running first")


def _read(connection: Connection, execution_id: UUID, tenant: str) -> Execution | None:
    c = executions.c
    row = connection.execute(select(executions).where(c.id == execution_id, c.tenant == tenant)).one_or_none()
    return None if row is None else execution_of(row)
