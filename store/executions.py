"""Executions: claim, finish, and what keeps a claim alive. The hot path: each function takes a batch.

A claim takes the row for one worker: status running, attempt + 1, lock_version + 1, a lease in the database's time.
Every later write carries the lock_version that was claimed; where the row has moved on, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    Connection,
    CursorResult,
    Float,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, ProgramStatus, Usage
from dspex.ids import digest
from store import counters
from store.batch import encode, records, upsert
from store.counters import Counts
from store.tables import NOW, executions, programs
from store.types import Json, database_now, storable


def _is(*statuses: ExecutionStatus) -> Any:
    # Part of the SQL text: by parameters, PostgreSQL could not tell that the partial index of the open rows is enough.
    return executions.c.status.in_([literal_column(f"'{status}'") for status in statuses])


_RUNNING = _is(ExecutionStatus.RUNNING)
_OPEN = _is(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


@dataclass(frozen=True)
class Request:
    """What is asked for: the body of an execute command, with where it came from."""

    id: UUID
    program_id: UUID
    inputs: Mapping[str, Any]
    options: ExecutionOptions
    source: str
    traceparent: str | None = None

    @property
    def digest(self) -> str:
        """The same for the same request, also as it is read from the database. Another one is a conflict.

        Options that are not set do not change it, so that one which is added later does not either.
        """
        options = self.options.model_dump(mode="json", exclude_defaults=True)
        return digest({"program": self.program_id.hex, "inputs": _exact(self.inputs), "options": options})


def _exact(value: Any) -> Any:
    """JSON values with whole numbers as integers: PostgreSQL keeps 1e16 as 10000000000000000, and -0.0 as 0.0."""
    match value:
        case float():
            return int(Decimal(repr(value))) if value.is_integer() else value
        case Mapping():
            return {key: _exact(item) for key, item in value.items()}
        case list() | tuple():
            return [_exact(item) for item in value]
    return value


@dataclass(frozen=True)
class Claimed:
    """The execution is this worker's to run. `backend_id` is None where the program is not ready."""

    id: UUID
    attempt: int
    lock_version: int
    backend_id: str | None


@dataclass(frozen=True)
class Running:
    """Another worker has it, and its lease has not run out."""

    id: UUID


@dataclass(frozen=True)
class Ended:
    """It has run already."""

    execution: Execution


@dataclass(frozen=True)
class Conflicting:
    """The id belongs to another request."""

    id: UUID


@dataclass(frozen=True)
class NoProgram:
    """There is no such program."""

    id: UUID


Claim = Claimed | Running | Ended | Conflicting | NoProgram


@dataclass(frozen=True)
class Execution:
    """A row, as it is read."""

    id: UUID
    program_id: UUID
    status: ExecutionStatus
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    error: ErrorDetail | None
    usage: Usage
    duration_ms: float | None
    attempt: int
    backend_id: str | None
    worker: str | None
    source: str
    traceparent: str | None
    inserted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lock_version: int


@dataclass(frozen=True)
class Finish:
    """The end of an execution that was claimed: outputs, or else an error."""

    id: UUID
    program_id: UUID
    lock_version: int
    duration_ms: float
    usage: Usage
    outputs: Mapping[str, Any] | None = None
    error: ErrorDetail | None = None

    @property
    def status(self) -> ExecutionStatus:
        return ExecutionStatus.COMPLETED if self.error is None else ExecutionStatus.FAILED

    @property
    def key(self) -> tuple[UUID, int, str]:
        """What there is once: one claim ends in one way."""
        return self.id, self.lock_version, self.status


@dataclass(frozen=True)
class Lease:
    """Who claims, and for how many seconds a claim holds without a heartbeat."""

    worker: str
    seconds: float


def claim(connection: Connection, lease: Lease, requests: Sequence[Request]) -> list[Claim]:
    """Claim each execution for a worker: insert it, or take it again when it is pending or its lease ran out.

    Returns:
        For each request, in order, what it is now. Only `Claimed` may be run.
    """
    first = {request.id: index for index, request in reversed(list(enumerate(requests)))}
    outcome = _claim_each(connection, lease, [requests[index] for index in first.values()])
    # An id that is there twice: the first request has been taken, and the others are told so.
    different = [
        index for index, r in enumerate(requests) if index != first[r.id] and r.digest != requests[first[r.id]].digest
    ]
    answers = claim(connection, lease, [requests[index] for index in different]) if different else ()
    others = dict(zip(different, answers, strict=True))
    claims: list[Claim] = []
    for index, request in enumerate(requests):
        answer = others.get(index, outcome[request.id])
        twice = index != first[request.id] and index not in others
        claims.append(Running(request.id) if twice and isinstance(answer, Claimed) else answer)
    return claims


def _claim_each(connection: Connection, lease: Lease, requests: Sequence[Request]) -> dict[UUID, Claim]:
    rows = [
        {
            "id": request.id,
            "program_id": request.program_id,
            "inputs": dict(request.inputs),
            "options": request.options.model_dump(mode="json"),
            "request_digest": request.digest,
            "source": request.source,
            "traceparent": request.traceparent,
        }
        for request in requests
    ]
    statement = _claim(connection.dialect.name, upsert(connection))
    found = connection.execute(statement, encode(rows) | {"worker": lease.worker, "lease_seconds": lease.seconds})
    outcome: dict[UUID, Claim] = {
        row.id: Claimed(row.id, row.attempt, row.lock_version, row.backend_id) for row in found
    }
    refused = [request for request in requests if request.id not in outcome]
    return outcome | (_explain(connection, refused) if refused else {})


def _explain(connection: Connection, requests: Sequence[Request]) -> dict[UUID, Claim]:
    """Why the claim did not take them."""
    rows = {row.id: row for row in connection.execute(_select().where(executions.c.id.in_([r.id for r in requests])))}
    explained: dict[UUID, Claim] = {}
    for request in requests:
        row = rows.get(request.id)
        if row is None:
            explained[request.id] = NoProgram(request.id)
        elif row.request_digest != request.digest:
            explained[request.id] = Conflicting(request.id)
        elif ExecutionStatus(row.status).terminal:
            explained[request.id] = Ended(_execution(row))
        else:
            explained[request.id] = Running(request.id)
    return explained


def finish(connection: Connection, shard: int, finishes: Sequence[Finish]) -> list[bool]:
    """End executions and count them, where they are still as they were claimed.

    Args:
        shard: of the counters (see `store.counters`).

    Returns:
        For each, in order, whether it is ended as asked. False: fenced, another worker has it; discard the result.
    """
    asked = {item.key: item for item in reversed(finishes)}
    rows = [
        {
            "id": item.id,
            "lock_version": item.lock_version,
            "status": item.status,
            "outputs": None if item.outputs is None else dict(item.outputs),
            "error": item.error and _error(item.error),
            "usage": item.usage.model_dump(mode="json"),
            "duration_ms": item.duration_ms,
        }
        for item in sorted(asked.values(), key=lambda item: item.id)
    ]
    ended = {_key(row) for row in connection.execute(_finish(connection.dialect.name), encode(rows))}
    counts: dict[UUID, Counts] = {}
    for key in ended:
        _count(counts.setdefault(asked[key].program_id, Counts()), asked[key])
    counters.increment(connection, shard, counts)
    missed = {item.id for key, item in asked.items() if key not in ended}
    if missed:
        # Where the commit of this very finish arrived, and the connection broke before the answer, it is ended.
        c = executions.c
        found = connection.execute(select(c.id, c.lock_version, c.status).where(c.id.in_(missed)))
        ended |= {_key(row) for row in found}
    return [item.key in ended for item in finishes]


def _key(row: Any) -> tuple[UUID, int, str]:
    """The `Finish.key` of the finish that made the row what it is."""
    return row.id, row.lock_version - 1, row.status


def _error(error: ErrorDetail) -> dict[str, Any]:
    problems = [{"field": storable(p.field), "message": storable(p.message)} for p in error.problems]
    return {"code": error.code, "message": storable(error.message), "problems": problems}


def _count(counts: Counts, item: Finish) -> None:
    counts.completed += item.error is None
    counts.failed += item.error is not None
    counts.duration_ms += item.duration_ms
    counts.input_tokens += item.usage.input_tokens
    counts.output_tokens += item.usage.output_tokens
    counts.cost += item.usage.cost or 0.0


def heartbeat(connection: Connection, lease: Lease, ids: Collection[UUID] | None = None) -> int:
    """Extend the lease of what the worker runs, save what is being changed right now.

    Args:
        ids: what it really runs. Without them, all that is claimed in its name: a claim whose answer was lost with the
            connection would be kept from being rescued.

    Returns:
        How many there were.
    """
    c = executions.c
    really = true() if ids is None else c.id.in_(ids)
    # It waits for no row: one that is locked is about to end, and waiting could deadlock with the batch that ends it.
    held = select(c.id).where(c.worker == lease.worker, _RUNNING, really).with_for_update(skip_locked=True)
    statement = (
        update(executions)
        .where(c.id.in_(held))
        .values(lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)))
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def release(connection: Connection, lease: Lease) -> int:
    """Give up everything that the worker runs: a shutdown spends no attempt. Returns how many there were."""
    c = executions.c
    held = select(c.id).where(c.worker == lease.worker, _RUNNING).order_by(c.id).with_for_update()
    statement = (
        update(executions)
        .where(c.id.in_(held))
        .values(
            status=ExecutionStatus.PENDING,
            attempt=c.attempt - 1,
            lock_version=c.lock_version + 1,
            lease_expires_at=database_now(bindparam("lease_seconds", lease.seconds, Float)),
            updated_at=NOW,
        )
    )
    return cast("CursorResult[Any]", connection.execute(statement)).rowcount


def rescue(connection: Connection, again_in: float, limit: int) -> list[Request]:
    """Take executions from workers that have not been heard of for a lease, and those that wait too long.

    They become pending, so a worker that is alive after all is fenced; the caller publishes them after the commit. If
    that message is lost too, they are due again in `again_in` seconds. Any number of callers may do this at once.
    """
    c = executions.c
    # A common table expression is run once; a plain subquery may be run again for each row, each time with a new limit.
    due = select(c.id).where(_OPEN, c.lease_expires_at < NOW).limit(limit).with_for_update(skip_locked=True).cte("due")
    statement = (
        update(executions)
        .where(c.id.in_(select(due.c.id)))
        .values(
            status=ExecutionStatus.PENDING,
            lock_version=c.lock_version + 1,
            lease_expires_at=database_now(bindparam("again_in", again_in, Float)),
            updated_at=NOW,
        )
        .returning(c.id, c.program_id, c.inputs, c.options, c.source, c.traceparent)
    )
    return [
        Request(row.id, row.program_id, row.inputs, ExecutionOptions(**row.options), row.source, row.traceparent)
        for row in connection.execute(statement)
    ]


def get(connection: Connection, ids: Sequence[UUID]) -> list[Execution]:
    """The executions of these ids that exist, in no order."""
    return [_execution(row) for row in connection.execute(_select().where(executions.c.id.in_(ids)))]


def ended(connection: Connection, ids: Sequence[UUID]) -> list[Execution]:
    """The executions of these ids that have ended, in no order."""
    c = executions.c
    return [_execution(row) for row in connection.execute(_select().where(c.id.in_(ids), ~_OPEN))]


def count(connection: Connection, program_id: UUID) -> dict[ExecutionStatus, int]:
    """How many executions of a program there are, by status. Counts rows: for small programs and for checks."""
    c = executions.c
    found = connection.execute(select(c.status, func.count()).where(c.program_id == program_id).group_by(c.status))
    return {ExecutionStatus(status): number for status, number in found}


def _select() -> Any:
    return select(executions)


def _execution(row: Any) -> Execution:
    return Execution(
        id=row.id,
        program_id=row.program_id,
        status=ExecutionStatus(row.status),
        inputs=row.inputs,
        outputs=row.outputs,
        error=ErrorDetail(**row.error) if row.error else None,
        usage=Usage(**(row.usage or {})),
        duration_ms=row.duration_ms,
        attempt=row.attempt,
        backend_id=row.backend_id,
        worker=row.worker,
        source=row.source,
        traceparent=row.traceparent,
        inserted_at=row.inserted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        lock_version=row.lock_version,
    )


@lru_cache(maxsize=2)
def _claim(dialect: str, insert: Any) -> Any:
    c = executions.c
    r = records(
        dialect,
        {
            "id": Uuid(),
            "program_id": Uuid(),
            "inputs": Json,
            "options": Json,
            "request_digest": String(),
            "source": Text(),
            "traceparent": String(),
        },
    )
    lease = database_now(bindparam("lease_seconds", type_=Float))
    ready = case((programs.c.status == ProgramStatus.READY, programs.c.backend_id), else_=null())
    values = {
        "id": r.c.id,
        "program_id": r.c.program_id,
        "inputs": r.c.inputs,
        "options": r.c.options,
        "request_digest": r.c.request_digest,
        "source": r.c.source,
        "traceparent": r.c.traceparent,
        "status": bindparam("running", ExecutionStatus.RUNNING, String),
        "attempt": bindparam("first", 1, Integer),
        "lock_version": bindparam("first", 1, Integer),
        "worker": bindparam("worker", type_=String),
        "lease_expires_at": lease,
        "backend_id": ready,
        "started_at": NOW,
        "inserted_at": NOW,
        "updated_at": NOW,
    }
    rows = (
        select(*values.values())
        .join_from(r, programs, programs.c.id == r.c.program_id)
        .where(r.c.id.is_not(None))
        # In one order, so that two workers with the same requests wait for each other and do not deadlock.
        .order_by(r.c.id)
    )
    statement = insert(executions).from_select(list(values), rows)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[c.id],
        set_={
            "status": new.status,
            "attempt": c.attempt + 1,
            "lock_version": c.lock_version + 1,
            "worker": new.worker,
            "lease_expires_at": new.lease_expires_at,
            "backend_id": new.backend_id,
            "started_at": new.started_at,
            "updated_at": new.updated_at,
        },
        where=(c.request_digest == new.request_digest)
        & or_(_is(ExecutionStatus.PENDING), _RUNNING & (c.lease_expires_at < NOW)),
    ).returning(c.id, c.attempt, c.lock_version, c.backend_id)


@lru_cache(maxsize=2)
def _finish(dialect: str) -> Any:
    c = executions.c
    r = records(
        dialect,
        {
            "id": Uuid(),
            "lock_version": Integer(),
            "status": String(),
            "outputs": Json,
            "error": Json,
            "usage": Json,
            "duration_ms": Float(),
        },
    )
    return (
        update(executions)
        # The status as an expression, which no index fits: each row is to be found by its id. By the index of the open
        # rows, PostgreSQL would go through all of them, and through all that ended since the last vacuum.
        .where(c.id == r.c.id, c.lock_version == r.c.lock_version, c.status.concat("") == ExecutionStatus.RUNNING)
        .values(
            status=r.c.status,
            outputs=r.c.outputs,
            error=r.c.error,
            usage=r.c.usage,
            duration_ms=r.c.duration_ms,
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            finished_at=NOW,
            updated_at=NOW,
        )
        .returning(c.id, c.lock_version, c.status)
    )
