"""The statements of the hot path: built once for each database, the same text whatever the size of the batch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ErrorCode, ExecutionStatus, ProgramStatus
from store import event_outbox
from store.column_types import Json, UtcDateTime, database_now, seconds_until
from store.database.batch import records, writes_in_with
from store.executions.timeline import begun, continued
from store.tables import NOW, REGISTERED, executions, programs, webhook_endpoints


def status_in(*statuses: ExecutionStatus) -> ColumnElement[bool]:
    """The status is one of these, as the partial indexes write it.

    Part of the SQL text: by parameters, PostgreSQL could not tell that a partial index is enough. SQLite cannot tell it
    of an IN with one member.
    """
    listed: list[ColumnElement[str]] = [literal_column(f"'{status}'") for status in statuses]
    return executions.c.status == listed[0] if len(listed) == 1 else executions.c.status.in_(listed)


PENDING = status_in(ExecutionStatus.PENDING)
RUNNING = status_in(ExecutionStatus.RUNNING)
OPEN = status_in(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
FAILED = status_in(ExecutionStatus.FAILED)
UNSUCCESSFUL = status_in(ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)

DUE = PENDING & or_(executions.c.not_before.is_(None), executions.c.not_before <= NOW)
"""It may be claimed."""
ABANDONED = RUNNING & (executions.c.lease_expires_at < NOW)
"""Its worker has not been heard of for a lease."""

PUSHED = (executions.c.callback, executions.c.program_callback)
LISTENING = select(webhook_endpoints.c.tenant).where(REGISTERED)
"""The tenants with endpoints that get every end."""

_REQUEST: dict[str, Any] = {
    "id": Uuid(),
    "program_id": Uuid(),
    "inputs": Json,
    "options": Json,
    "request_digest": String(),
    "source": Text(),
    "traceparent": String(),
    "tenant": String(),
    "not_before": UtcDateTime(),
    "deadline": UtcDateTime(),
    "reply_to": Text(),
    "correlation_id": Text(),
    "callback": Json,
    "metadata": Json,
    "extensions": Json,
}


@lru_cache(maxsize=2)
def claim(dialect: str, insert: Any) -> Any:
    """The new ones. Parameters: `records` of requests, `worker`, `lease_seconds`.

    `ON CONFLICT DO UPDATE` would also lock the rows that it leaves as they are, and those that are about to end are
    locked in no order: the two would deadlock.
    """
    read = records(dialect, _REQUEST)
    # In a subquery, so that one reading of the clock decides.
    r = select(*read.c, (read.c.not_before > NOW).label("later")).subquery("asked")
    worker = bindparam("worker", type_=String)
    lease = database_now(bindparam("lease_seconds", type_=Float))
    running = bindparam("running", ExecutionStatus.RUNNING, String)
    pending = bindparam("pending", ExecutionStatus.PENDING, String)
    ready = case((programs.c.status == ProgramStatus.READY, programs.c.backend_id), else_=null())

    def now(value: Any, later: Any = null()) -> Any:  # noqa: B008 - an immutable expression
        return case((r.c.later, later), else_=value)

    first = now(literal_column("1"), literal_column("0"))
    values = {name: r.c[name] for name in _REQUEST} | {
        "status": now(running, pending),
        "attempt": first,
        "lock_version": bindparam("first", 1, Integer),
        "worker": now(worker),
        "lease_expires_at": now(lease),
        "due_at": now(null(), r.c.not_before),
        "backend_id": ready,
        "policy": programs.c.policy,
        "program_callback": programs.c.callback,
        "started_at": now(NOW),
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(now(running, pending), first, worker),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
    return statement.on_conflict_do_nothing().returning(*_claimed())


@lru_cache(maxsize=2)
def claim_again(dialect: str) -> Any:
    """Those that are there, and due or abandoned. Parameters: `records` of `AGAIN`, `worker`, `lease_seconds`.

    It waits for no row, so it cannot deadlock: whoever is changing one claims it, ends it, or has it published again.
    """
    c, p, r = executions.c, programs.c, records(dialect, AGAIN)
    worker = bindparam("worker", type_=String)
    running = bindparam("running", ExecutionStatus.RUNNING, String)
    ready = case((p.status == ProgramStatus.READY, p.backend_id), else_=null())
    free = (
        select(c.id, c.tenant, ready.label("backend_id"), p.policy, p.callback)
        .join_from(r, executions, (c.id == r.c.id) & (c.tenant == r.c.tenant))
        .join(programs, (p.id == r.c.program_id) & (p.tenant == r.c.tenant))
        # As an expression, so that each row is found by its id: as in `finish`.
        .where(
            case(
                ((c.request_digest == r.c.request_digest) & or_(DUE, ABANDONED), true()),
                else_=false(),
            )
        )
        .with_for_update(of=executions, skip_locked=True)
        .cte("free")
    )
    return (
        update(executions)
        .where(c.id == free.c.id, c.tenant == free.c.tenant)
        .values(
            status=running,
            attempt=c.attempt + 1,
            lock_version=c.lock_version + 1,
            worker=worker,
            lease_expires_at=database_now(bindparam("lease_seconds", type_=Float)),
            due_at=null(),
            backend_id=free.c.backend_id,
            policy=free.c.policy,
            program_callback=free.c.callback,
            started_at=NOW,
            updated_at=NOW,
            lost=c.lost + case((RUNNING, 1), else_=0),
            timeline=continued(c.timeline, running, c.attempt + 1, worker),
        )
        .returning(*_claimed())
    )


_RATE_LIMITED: Any = literal_column(f"'{ErrorCode.RATE_LIMITED}'")

AGAIN: dict[str, Any] = {name: _REQUEST[name] for name in ("id", "program_id", "request_digest", "tenant")}
"""What `claim_again` reads of a request."""


def _claimed() -> list[ColumnElement[Any]]:
    c = executions.c
    return [
        c.id,
        c.tenant,
        c.status,
        c.attempt,
        c.lock_version,
        c.backend_id,
        c.cancel_requested,
        c.policy,
        c.usage,
        c.carried,
        c.lost,
        seconds_until(c.deadline).label("seconds_left"),
        # A wait that was asked for has taken longer: until a worker had time, and the message came.
        case((c.error_code == _RATE_LIMITED, -seconds_until(c.not_before)), else_=null()).label("late"),
        c.reply_to,
        c.metadata,
        c.extensions,
    ]


@lru_cache(maxsize=2)
def create(dialect: str, insert: Any) -> Any:
    """Parameters: `records` of requests, `due_in`, `by`."""
    r = records(dialect, _REQUEST)
    values = {name: r.c[name] for name in _REQUEST} | {
        "status": bindparam("pending", ExecutionStatus.PENDING, String),
        "attempt": bindparam("none", 0, Integer),
        "lock_version": bindparam("first", 1, Integer),
        "due_at": func.coalesce(r.c.not_before, database_now(bindparam("due_in", type_=Float))),
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(
            bindparam("pending", ExecutionStatus.PENDING, String), literal_column("0"), bindparam("by", type_=String)
        ),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
    return statement.on_conflict_do_nothing()


_REGISTERED = executions.c.tenant.in_(LISTENING).label("registered")


def _of_programs(r: Any, values: dict[str, Any]) -> Any:
    return (
        select(*values.values())
        .join_from(r, programs, (programs.c.id == r.c.program_id) & (programs.c.tenant == r.c.tenant))
        .where(r.c.id.is_not(None))
        # In one order, so that two workers with the same requests wait for each other and do not deadlock.
        .order_by(r.c.id, r.c.tenant)
    )


_USED: dict[str, Any] = {
    "usage": Json,
    "input_tokens": BigInteger(),
    "output_tokens": BigInteger(),
    "cost": Float(),
}


@lru_cache(maxsize=4)
def finish(dialect: str, insert: Any, *, whole: bool = False) -> Any:
    """Ends executions; where it `writes_in_with`, it adds their events to the outbox as well.

    Parameters: `records` of ends, and then those of `event_outbox.adding`. `whole` rows have every column.
    """
    ended = _finish(dialect, whole)
    if not writes_in_with(dialect):
        return ended
    rows = ended.cte("ended")
    return select(rows).add_cte(event_outbox.adding(insert, rows.c.id, rows.c.lock_version, rows.c.tenant).cte("added"))


def _finish(dialect: str, whole: bool) -> Any:
    c = executions.c
    results: dict[str, Any] = {
        "outputs": Json,
        "error": Json,
        "duration_ms": Float(),
        "error_code": String(),
        **_USED,
    }
    which = {"id": Uuid(), "tenant": String(), "lock_version": Integer(), "status": String(), "attempt": Integer()}
    r = records(dialect, which | results)
    attempt = func.coalesce(r.c.attempt, c.attempt)
    return (
        update(executions)
        .where(
            c.id == r.c.id,
            c.lock_version == r.c.lock_version,
            c.tenant == r.c.tenant,
            # As an expression, which no index fits: each row is to be found by its id. By the index of the open rows,
            # PostgreSQL would go through all of them, and through all that ended since the last vacuum.
            c.status.concat("") == ExecutionStatus.RUNNING,
        )
        .values(
            {name: r.c[name] for name in results}
            | {
                "status": r.c.status,
                "attempt": attempt,
                "lock_version": c.lock_version + 1,
                "lease_expires_at": null(),
                "finished_at": NOW,
                "updated_at": NOW,
                "timeline": continued(c.timeline, r.c.status, attempt, c.worker),
            }
        )
        # Whether the end is pushed somewhere, in the same breath: the few tenants with endpoints are hashed once.
        .returning(*(c if whole else (c.id, c.lock_version, c.status, c.tenant, *PUSHED)), _REGISTERED)
    )


@lru_cache(maxsize=2)
def retry(dialect: str) -> Any:
    """Parameter: `records` of attempts after which there is another."""
    c, r = executions.c, records(dialect, _RETRY)
    due = database_now(r.c.delay)
    pending = bindparam("pending", ExecutionStatus.PENDING, String)
    return (
        update(executions)
        .where(
            c.id == r.c.id,
            c.lock_version == r.c.lock_version,
            c.tenant == r.c.tenant,
            c.status.concat("") == ExecutionStatus.RUNNING,  # as in `finish`
        )
        .values(
            status=ExecutionStatus.PENDING,
            attempt=r.c.attempt,
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            due_at=due,
            not_before=due,
            **{name: r.c[name] for name in ("error", "error_code", "carried", *_USED)},
            updated_at=NOW,
            timeline=continued(c.timeline, pending, r.c.attempt, c.worker),
        )
        .returning(c.id, c.lock_version, c.status, c.tenant)
    )


_RETRY: dict[str, Any] = {
    "id": Uuid(),
    "tenant": String(),
    "lock_version": Integer(),
    "delay": Float(),
    "attempt": Integer(),
    "error": Json,
    "error_code": String(),
    "carried": Json,
    **_USED,
}
