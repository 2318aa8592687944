"""Claim, finish and retry: the hot path, with one statement for each batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from dspex import ExecutionStatus
from dspex.blobs.values import BLOBS
from store import counters, event_outbox, histogram, webhooks
from store.counters import Counts
from store.database.batch import PARAMETER, encode, execute, upsert, writes_in_with
from store.database.identity import Identity, is_one_of, lock_order
from store.event_outbox import OutboxEntry
from store.executions import blobs, statements, traces
from store.executions.adoption import adopt_these
from store.executions.claims import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Lease,
    NoProgram,
    Running,
    Waiting,
    claim_of,
)
from store.executions.idempotency import Holder, Key, give_back, take
from store.executions.queries import of_all_tenants
from store.executions.rows import (
    EndKey,
    Execution,
    Finish,
    Request,
    Retry,
    cost_of,
    execution_of,
    finish_row,
    lane_of,
    request_row,
    retry_row,
)
from store.executions.waiting import wait
from store.queues.keys import QueueKey, key_of
from store.tables import executions, programs


def claim(
    connection: Connection,
    lease: Lease,
    requests: Sequence[Request],
    *,
    now: Sequence[bool],
) -> list[Claim]:
    """Accept executions: claim new ones for a worker that has a place for them, and write down that the others wait.

    If a request's idempotency key belongs to an earlier execution, its answer is that execution's, under its id.

    Args:
        now: for each request, whether the worker has a place for it. Without one, and before its `not_before`, it is
            `Waiting` in its queue, which is offered. So is one that an earlier version has left pending.

    Returns:
        The result for each request, in order. Only a `Claimed` may be run.
    """
    asked = [_Asked(request, now=place) for request, place in zip(requests, now, strict=True)]
    if not any(request.idempotency_key for request in requests):
        return _claim_by_id(connection, lease, asked)
    holders = _take_keys(connection, requests)
    claims: list[Claim] = [Conflicting(request.id, by_key=True) for request in requests]
    resolved: dict[int, _Asked] = {}
    for index, (request, place) in enumerate(asked):
        holder = holders.get(Key(request.tenant, request.idempotency_key or ""))
        if holder is None:
            resolved[index] = asked[index]
        elif holder.request_digest == request.digest:
            resolved[index] = _Asked(replace(request, id=holder.execution_id), place)
    answers = _claim_by_id(connection, lease, list(resolved.values()))
    for index, answer in zip(resolved, answers, strict=True):
        claims[index] = answer
    fruitless = {
        Key(request.tenant, request.idempotency_key)
        for index, (request, _) in resolved.items()
        if request.idempotency_key and isinstance(claims[index], NoProgram | Conflicting)
    }
    if fruitless:
        give_back(connection, fruitless)
    return claims


class _Asked(NamedTuple):
    """A request, and whether the worker has a place for it."""

    request: Request
    now: bool

    @property
    def identity(self) -> Identity:
        return self.request.identity


def _take_keys(connection: Connection, requests: Sequence[Request]) -> dict[Key, Holder]:
    wanted: dict[Key, Holder] = {}
    for request in requests:
        if request.idempotency_key:
            wanted.setdefault(Key(request.tenant, request.idempotency_key), Holder(request.id, request.digest))
    return take(connection, list(wanted.items()))


def _claim_by_id(connection: Connection, lease: Lease, asked: Sequence[_Asked]) -> list[Claim]:
    identities = [one.identity for one in asked]
    first = {identity: index for index, identity in reversed(list(enumerate(identities)))}
    outcome = _claim_each(connection, lease, [asked[index] for index in first.values()])
    # If an id comes twice, the first request is claimed, and the others see that it is running.
    different = [
        index
        for index, (request, _) in enumerate(asked)
        if index != (taken := first[identities[index]]) and request.digest != asked[taken].request.digest
    ]
    again = [asked[index] for index in different]
    answers = _claim_by_id(connection, lease, again) if again else ()
    others = dict(zip(different, answers, strict=True))
    claims: list[Claim] = []
    for index, (request, _) in enumerate(asked):
        answer = others.get(index, outcome[identities[index]])
        twice = index != first[identities[index]] and index not in others
        claims.append(Running(request.id) if twice and isinstance(answer, Claimed) else answer)
    return claims


def _claim_each(connection: Connection, lease: Lease, asked: Sequence[_Asked]) -> dict[Identity, Claim]:
    rows = [request_row(request) | dict[str, Any](now=place) for request, place in asked]
    encoded = encode(rows)
    # One that is to run now is inserted or not, and nothing else follows where it was.
    alone = len(rows) == 1 and asked[0].now and not rows[0]["not_before"] and blobs.MARK not in encoded[PARAMETER]
    statement = statements.claim(connection.dialect.name, upsert(connection))
    by = {"worker": lease.worker, "lease_seconds": lease.seconds}
    found = execute(connection, statement, encoded | by, alone=alone)
    outcome = {Identity(row.id, row.tenant): claim_of(row) for row in found}
    there = [row for row in rows if Identity(row["id"], row["tenant"]) not in outcome]
    if blobs.MARK in encoded[PARAMETER]:
        claimed = [request for request, _ in asked if request.identity in outcome]
        blobs.keep(connection, {request.identity: blobs.digests_in(request.inputs) for request in claimed})
    refused = [request for request, _ in asked if request.identity not in outcome]
    explained = explain(connection, refused)
    # The last statements: what they lock, they lock until the commit.
    left = adopt_these(connection, there) if there else []
    waiting = [request for request, _ in asked if isinstance(outcome.get(request.identity), Waiting)]
    wait(connection, [*left, *((_queue_of(request), request.options.not_before) for request in waiting)])
    return outcome | explained


def _queue_of(request: Request) -> QueueKey:
    return QueueKey(request.tenant, request.program_id, lane_of(request.options).number)


def explain(connection: Connection, requests: Sequence[Request]) -> dict[Identity, Claim]:
    """Find out why a claim did not take these."""
    if not requests:
        return {}
    found = connection.execute(select(executions).where(executions.c.id.in_([r.id for r in requests])))
    rows = {Identity(row.id, row.tenant): row for row in found}
    return {request.identity: _reason(connection, request, rows.get(request.identity)) for request in requests}


def _reason(connection: Connection, request: Request, row: Any) -> Claim:
    if row is None:
        return NoProgram(request.id)
    if row.request_digest != request.digest:
        return Conflicting(request.id)
    if ExecutionStatus(row.status).terminal:
        return Ended(execution_of(row))
    if row.status == ExecutionStatus.PENDING:
        return Waiting(request.id) if has_program(connection, request) else NoProgram(request.id)
    return Running(request.id)


def has_program(connection: Connection, request: Request) -> bool:
    """Whether the program of a request exists."""
    c = programs.c
    found = select(c.id).where(c.id == request.program_id, c.tenant == request.tenant)
    return connection.execute(found).one_or_none() is not None


def finish(
    connection: Connection,
    shard: int,
    finishes: Sequence[Finish],
    *,
    event_in: float = 30.0,
    webhook_in: float = 0.0,
) -> list[bool]:
    """End executions that still have the claimed lock_version, count them, and add their events to the outbox.

    Their traces are kept by one more statement, if there are any.

    Args:
        shard: the shard of the counters (see `store.counters`).
        event_in: seconds until the relay sends the events (see `store.event_outbox`).
        webhook_in: seconds until the deliveries are due, if there are any (see `store.webhooks`).

    Returns:
        For each, in order, whether it was ended. False: another worker has claimed it since; discard the result.
    """
    done = finish_and_read(connection, shard, finishes, event_in=event_in, webhook_in=webhook_in)
    return [held for held, _ in done]


def finish_and_read(
    connection: Connection,
    shard: int,
    finishes: Sequence[Finish],
    *,
    event_in: float = 30.0,
    webhook_in: float = 0.0,
) -> list[tuple[bool, Execution | None]]:
    """Like `finish`, and also returns the ended execution for those that a sender waits for."""
    if not finishes:
        return []
    keys = [item.key for item in finishes]
    asked = dict(zip(reversed(keys), reversed(finishes), strict=True))
    rows = [finish_row(item) for item in sorted(asked.values(), key=lock_order)]
    dialect, columns, parameters = connection.dialect.name, tuple(rows[0]), dict[str, Any]()
    if writes_in_with(dialect):
        for row in rows:
            row[counters.BUCKET] = _bucket(row)
        parameters |= {event_outbox.DUE_IN: event_in, counters.SHARD: shard}
    whole = any(item.answered for item in finishes)
    statement = statements.finish(dialect, upsert(connection), columns, whole=whole)
    found = execute(connection, statement, parameters | encode(rows)).all()
    ended = {_key(row) for row in found}
    counted = {_key(row) for row in found if row.counted} if writes_in_with(dialect) else set[EndKey]()
    if uncounted := ended - counted:
        counters.increment(connection, shard, _counts(asked[key] for key in uncounted))
    traces.keep(connection, [asked[key] for key in ended])
    stored = {key[0]: item.outputs for key in ended if (item := asked[key]).outputs and BLOBS in item.outputs}
    if stored:
        blobs.keep(connection, {execution: blobs.digests_in(outputs) for execution, outputs in stored.items()})
    if ended and not writes_in_with(dialect):
        ends = [OutboxEntry(identity.id, lock_version + 1, identity.tenant) for identity, lock_version, _ in ended]
        event_outbox.add(connection, ends, event_in)
    pushed = [webhooks.end_of(row, registered=row.registered) for row in found if _is_pushed(row)]
    if pushed:
        webhooks.fan_out(connection, pushed, webhook_in)
    ended |= _committed_before(connection, [item for key, item in asked.items() if key not in ended])
    answered = {key[0] for key, item in zip(keys, finishes, strict=True) if item.answered and key in ended}
    read: dict[Identity, Execution] = {}
    if answered:
        read = {identity: execution_of(row) for row in found if (identity := Identity(row.id, row.tenant)) in answered}
        # Those that an earlier transaction has ended, see `_committed_before`.
        read |= {row.identity: row for row in of_all_tenants(connection, answered - read.keys())}
    return [(key in ended, read.get(key[0])) for key in keys]


def _is_pushed(row: Any) -> bool:
    return bool(row.registered) or row.callback is not None or row.program_callback is not None


def retry(connection: Connection, retries: Sequence[Retry]) -> list[bool]:
    """Make executions pending for their next attempt, if they still have the claimed lock_version. They wait in their
    queues, which are offered.

    Returns:
        For each, in order, whether it is pending now. False: another worker has claimed it since.
    """
    if not retries:
        return []
    asked = {item.key: item for item in reversed(retries)}
    rows = [retry_row(item) for item in sorted(asked.values(), key=lock_order)]
    statement = statements.retry(connection.dialect.name, tuple(rows[0]))
    found = execute(connection, statement, encode(rows)).all()
    waiting = {_key(row) for row in found}
    traces.keep(connection, [asked[key] for key in waiting])
    waiting |= _committed_before(connection, [item for key, item in asked.items() if key not in waiting])
    wait(connection, [(key_of(row), row.run_at) for row in found])
    return [item.key in waiting for item in retries]


def _committed_before(connection: Connection, missed: Sequence[Finish | Retry]) -> set[EndKey]:
    """Find writes that were committed before: the commit arrived, but the connection broke before its answer."""
    if not missed:
        return set()
    c = executions.c
    these = is_one_of(executions, [item.identity for item in missed])
    return {_key(row) for row in connection.execute(select(c.id, c.lock_version, c.status, c.tenant).where(these))}


def _key(row: Any) -> EndKey:
    """The `key` of the last write to the row."""
    return Identity(row.id, row.tenant), row.lock_version - 1, row.status


def _counts(ended: Iterable[Finish]) -> dict[Identity, Counts]:
    counts: dict[Identity, Counts] = {}
    for item in ended:
        program = Identity(item.program_id, item.tenant)
        if program not in counts:
            counts[program] = Counts(executed=False)
        _count(counts[program], item)
    return counts


def _count(counts: Counts, item: Finish) -> None:
    counts.use(item.usage.input_tokens, item.usage.output_tokens, cost_of(item.usage))
    counts.executed |= item.duration_ms is not None
    if item.cancelled:
        counts.cancelled += 1
        return
    counts.completed += item.error is None
    counts.failed += item.error is not None
    if item.duration_ms is None:
        return
    counts.duration_ms += item.duration_ms
    bucket = histogram.bucket(item.duration_ms)
    counts.durations[bucket] = counts.durations.get(bucket, 0) + 1


def _bucket(row: Mapping[str, Any]) -> int | None:
    """The bucket in which an end counts; None: in none, as in `_count`."""
    duration_ms: float | None = row["duration_ms"]
    if duration_ms is None or row["status"] == ExecutionStatus.CANCELLED:
        return None
    return histogram.bucket(duration_ms)
