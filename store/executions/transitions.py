"""Claim and finish: the hot path, a statement for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from dspex import ErrorDetail, ExecutionStatus
from store import counters, histogram
from store.batch import encode, upsert
from store.counters import Counts
from store.executions.rows import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Finish,
    Lease,
    NoProgram,
    Request,
    Running,
    execution_of,
)
from store.executions.statements import _claim, _finish
from store.tables import executions, programs
from store.types import storable


def claim(connection: Connection, lease: Lease, requests: Sequence[Request]) -> list[Claim]:
    """Claim each execution for a worker: insert it, or take it again when it is pending or its lease ran out.

    Returns:
        For each request, in order, what it is now. Only `Claimed` may be run.
    """
    first = {request.id: index for index, request in reversed(list(enumerate(requests)))}
    outcome = _claim_each(connection, lease, [requests[index] for index in first.values()])
    # An id that is there twice: the first request has been taken, and the others are told so.
    different = [
        index for index, r in enumerate(requests) if index != first[r.id] and _differ(r, requests[first[r.id]])
    ]
    answers = claim(connection, lease, [requests[index] for index in different]) if different else ()
    others = dict(zip(different, answers, strict=True))
    claims: list[Claim] = []
    for index, request in enumerate(requests):
        answer = others.get(index, outcome[request.id])
        twice = index != first[request.id] and index not in others
        claims.append(Running(request.id) if twice and isinstance(answer, Claimed) else answer)
    return claims


def _differ(one: Request, other: Request) -> bool:
    return (one.tenant, one.digest) != (other.tenant, other.digest)


def row_of(request: Request) -> dict[str, Any]:
    """A request, as the statements take it."""
    return {
        "id": request.id,
        "program_id": request.program_id,
        "inputs": dict(request.inputs),
        "options": request.options.model_dump(mode="json"),
        "request_digest": request.digest,
        "source": request.source,
        "traceparent": request.traceparent,
        "tenant": request.tenant,
    }


def _claim_each(connection: Connection, lease: Lease, requests: Sequence[Request]) -> dict[UUID, Claim]:
    statement = _claim(connection.dialect.name, upsert(connection))
    parameters = encode(map(row_of, requests)) | {"worker": lease.worker, "lease_seconds": lease.seconds}
    outcome: dict[UUID, Claim] = {
        row.id: Claimed(row.id, row.attempt, row.lock_version, row.backend_id, row.cancel_requested)
        for row in connection.execute(statement, parameters)
    }
    refused = [request for request in requests if request.id not in outcome]
    return outcome | (_explain(connection, refused) if refused else {})


def _explain(connection: Connection, requests: Sequence[Request]) -> dict[UUID, Claim]:
    """Why the claim did not take them."""
    # By id alone: that another tenant has the id is a conflict, of which nothing else is told.
    found = connection.execute(select(executions).where(executions.c.id.in_([r.id for r in requests])))
    rows = {row.id: row for row in found}
    explained: dict[UUID, Claim] = {}
    for request in requests:
        row = rows.get(request.id)
        if row is None:
            explained[request.id] = NoProgram(request.id)
        elif (row.tenant, row.request_digest) != (request.tenant, request.digest):
            explained[request.id] = Conflicting(request.id)
        elif ExecutionStatus(row.status).terminal:
            explained[request.id] = Ended(execution_of(row))
        elif row.status == ExecutionStatus.PENDING and not has_program(connection, request):
            explained[request.id] = NoProgram(request.id)
        else:
            explained[request.id] = Running(request.id)
    return explained


def has_program(connection: Connection, request: Request) -> bool:
    """Whether there is the program that a request is for."""
    c = programs.c
    found = select(c.id).where(c.id == request.program_id, c.tenant == request.tenant)
    return connection.execute(found).one_or_none() is not None


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
            "tenant": item.tenant,
            "lock_version": item.lock_version,
            "status": item.status,
            "outputs": None if item.outputs is None else dict(item.outputs),
            "error": item.error and _error(item.error),
            "usage": item.usage.model_dump(mode="json"),
            "duration_ms": item.duration_ms,
            "error_code": item.error and storable(item.error.code)[:64],
            "input_tokens": item.usage.input_tokens,
            "output_tokens": item.usage.output_tokens,
            "cost": item.usage.cost,
        }
        for item in sorted(asked.values(), key=lambda item: item.id)
    ]
    ended = {_key(row) for row in connection.execute(_finish(connection.dialect.name), encode(rows))}
    counts: dict[UUID, Counts] = {}
    for key in ended:
        item = asked[key]
        _count(counts.setdefault(item.program_id, Counts(tenant=item.tenant)), item)
    counters.increment(connection, shard, counts)
    missed = {item.id for key, item in asked.items() if key not in ended}
    if missed:
        # Where the commit of this very finish arrived, and the connection broke before the answer, it is ended.
        c = executions.c
        tenants = {item.id: item.tenant for item in finishes}
        found = connection.execute(select(c.id, c.lock_version, c.status, c.tenant).where(c.id.in_(missed)))
        ended |= {_key(row) for row in found if row.tenant == tenants[row.id]}
    return [item.key in ended for item in finishes]


def _key(row: Any) -> tuple[UUID, int, str]:
    """The `Finish.key` of the finish that made the row what it is."""
    return row.id, row.lock_version - 1, row.status


def _error(error: ErrorDetail) -> dict[str, Any]:
    problems = [{"field": storable(p.field), "message": storable(p.message)} for p in error.problems]
    return {"code": error.code, "message": storable(error.message), "problems": problems}


def _count(counts: Counts, item: Finish) -> None:
    counts.input_tokens += item.usage.input_tokens
    counts.output_tokens += item.usage.output_tokens
    counts.cost += item.usage.cost or 0.0
    if item.cancelled:
        counts.cancelled += 1
        return
    counts.completed += item.error is None
    counts.failed += item.error is not None
    counts.duration_ms += item.duration_ms
    bucket = histogram.bucket(item.duration_ms)
    counts.durations[bucket] = counts.durations.get(bucket, 0) + 1
