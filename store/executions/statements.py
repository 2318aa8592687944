"""The statements of the hot path: built once for each database; the text does not depend on the batch's size."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    Integer,
    String,
    bindparam,
    case,
    exists,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from dspex import ErrorCode, ExecutionStatus, ProgramStatus
from store import counters, event_outbox, statuses
from store.column_types import database_now, seconds_until
from store.database.batch import records, writes_in_with
from store.executions.claims import (
    CLAIMED_COLUMNS,
)
from store.executions.rows import (
    EXECUTION_COLUMNS,
    REQUEST_COLUMNS,
)
from store.executions.timeline import begun, continued
from store.gates.known import CHANGED_AT
from store.queues.keys import NEVER_SECONDS
from store.statuses import status_in
from store.tables import NOW, REGISTERED, early_cancels, executions, programs, webhook_endpoints

PENDING = statuses.PENDING
RUNNING = statuses.RUNNING
OPEN = status_in(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
FAILED = status_in(ExecutionStatus.FAILED)
UNSUCCESSFUL = status_in(ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)

IS_EXTERNAL = statuses.IS_EXTERNAL

NEVER: Any = database_now(literal_column(str(NEVER_SECONDS)))
"""When what waits in its queue is due for a relay from before queues."""

RUN_AT = func.coalesce(executions.c.not_before, executions.c.inserted_at)
"""The place in its queue of an execution that has waited before: that of its age."""

_EARLY: Any = select(literal_column("1")).select_from(early_cancels)
_EARLY_ID, _EARLY_TENANT = early_cancels.c.execution_id, early_cancels.c.tenant

QUEUED = (executions.c.program_id, executions.c.lane, executions.c.group_key, executions.c.run_at)
"""With the tenant, the queue of an execution, and its time there."""

PUSHED = (executions.c.callback, executions.c.program_callback)
LISTENING = select(webhook_endpoints.c.tenant).where(REGISTERED)
"""The tenants with registered endpoints, which get every end."""


def _types(names: Iterable[str]) -> dict[str, Any]:
    """The types of columns, for `records`."""
    return {name: executions.c[name].type for name in names}


@lru_cache(maxsize=2)
def claim(dialect: str, insert: Any) -> Any:
    """Inserts the new executions: claimed; or waiting, where `now` is false, and before their time. Parameters:
    `records` of requests with `now`, `worker`, `lease_seconds`.

    `ON CONFLICT DO UPDATE` would lock existing rows, too. It could deadlock with a batch of ends, which locks its rows
    in another order.
    """
    read = records(dialect, _types(REQUEST_COLUMNS) | {"now": Boolean()})
    before = read.c.not_before > NOW
    # In a subquery, so that the clock is read once.
    waits = or_(~read.c.now, func.coalesce(before, false()))
    r = select(*read.c, waits.label("later"), before.label("scheduled")).subquery("asked")
    worker = bindparam("worker", type_=String)
    lease = database_now(bindparam("lease_seconds", type_=Float))
    running = bindparam("running", ExecutionStatus.RUNNING, String)
    pending = bindparam("pending", ExecutionStatus.PENDING, String)

    def now(value: Any, later: Any = null()) -> Any:  # noqa: B008 - an immutable expression
        return case((r.c.later, later), else_=value)

    first = now(literal_column("1"), literal_column("0"))
    values = {name: r.c[name] for name in REQUEST_COLUMNS} | {
        "status": now(running, pending),
        "attempt": first,
        "lock_version": bindparam("first", 1, Integer),
        "worker": now(worker),
        "lease_expires_at": now(lease),
        "due_at": now(null(), NEVER),
        "backend_id": READY_BACKEND,
        "policy": programs.c.policy,
        "program_callback": programs.c.callback,
        "started_at": now(NOW),
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(now(running, pending), first, worker),
        "run_at": now(null(), case((r.c.scheduled, r.c.not_before), else_=NOW)),
        "cancel_requested": exists(
            # Locked, so that none is taken back by which an execution is being cancelled, see `early`.
            _EARLY.where(r.c.id == _EARLY_ID, r.c.tenant == _EARLY_TENANT).with_for_update(read=True, key_share=True)
        ),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
    return statement.on_conflict_do_nothing().returning(*claimed_columns(), CHANGED_AT.label("gates_at"))


ALONE_AT = "alone_at"


def last_chance(max_attempts: Any) -> ColumnElement[bool]:
    """The condition that the next attempt of one that waits is the last one, after some that ended with their worker.

    Parameter: `ALONE_AT`, the attempts of those whose program does not say.

    Args:
        max_attempts: those of the program.
    """
    c = executions.c
    return (c.lost > 0) & (c.attempt + 1 == func.coalesce(max_attempts, bindparam(ALONE_AT, type_=Integer)))


READY_BACKEND: Any = case((programs.c.status == ProgramStatus.READY, programs.c.backend_id), else_=null())
"""The backend of a program that is ready; NULL of another."""


def claimed_values(backend_id: Any, policy: Any, callback: Any) -> dict[str, Any]:
    """What a claim writes into an existing row, with what it takes of the program. Parameters: `worker`,
    `lease_seconds`.
    """
    c, worker = executions.c, bindparam("worker", type_=String)
    running = bindparam("running", ExecutionStatus.RUNNING, String)
    return {
        "status": running,
        "attempt": c.attempt + 1,
        "lock_version": c.lock_version + 1,
        "worker": worker,
        "lease_expires_at": database_now(bindparam("lease_seconds", type_=Float)),
        "due_at": null(),
        "backend_id": backend_id,
        "policy": policy,
        "program_callback": callback,
        "started_at": NOW,
        "updated_at": NOW,
        "timeline": continued(c.timeline, running, c.attempt + 1, worker),
    }


_RATE_LIMITED: Any = literal_column(f"'{ErrorCode.RATE_LIMITED}'")


def claimed_columns() -> list[ColumnElement[Any]]:
    """What `claim_of` reads."""
    c = executions.c
    return [
        *(c[name] for name in CLAIMED_COLUMNS),
        seconds_until(c.deadline).label("seconds_left"),
        # How much longer than requested a wait took, until a worker had time and the message came.
        case((c.error_code == _RATE_LIMITED, -seconds_until(c.not_before)), else_=null()).label("late"),
    ]


@lru_cache(maxsize=2)
def create(dialect: str, insert: Any) -> Any:
    """Inserts executions that a service runs itself. Parameters: `records` of requests, `by`."""
    r = records(dialect, _types(REQUEST_COLUMNS))
    values = {name: r.c[name] for name in REQUEST_COLUMNS} | {
        "status": bindparam("pending", ExecutionStatus.PENDING, String),
        "attempt": bindparam("none", 0, Integer),
        "lock_version": bindparam("first", 1, Integer),
        "due_at": NEVER,
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(
            bindparam("pending", ExecutionStatus.PENDING, String), literal_column("0"), bindparam("by", type_=String)
        ),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
    return statement.on_conflict_do_nothing().returning(executions.c.id)


_REGISTERED = executions.c.tenant.in_(LISTENING).label("registered")


def _of_programs(r: Any, values: dict[str, Any]) -> Any:
    return (
        select(*values.values())
        .join_from(r, programs, (programs.c.id == r.c.program_id) & (programs.c.tenant == r.c.tenant))
        .where(r.c.id.is_not(None))
        # In a fixed order, so that two workers with the same requests do not deadlock.
        .order_by(r.c.id, r.c.tenant)
    )


_WHICH = ("id", "tenant", "lock_version")
"""The columns that identify the row and the claim of an end."""


@lru_cache(maxsize=4)
def finish(dialect: str, insert: Any, columns: tuple[str, ...], *, whole: bool = False) -> Any:
    """Ends executions. If the database `writes_in_with`, also counts them, and adds their events to the outbox.

    Parameters: `records` of ends with these columns, and in the second case their `counters.BUCKET`, and those of
    `counters.counting` and `event_outbox.adding`. With `whole`, it returns what an `Execution` is read from; in the
    second case also whether the row was `counted`.
    """
    if not writes_in_with(dialect):
        return _finish(dialect, columns, whole)
    ended = _finish(dialect, columns, whole, counted=True).cte("ended")
    swapped, durations = counters.counting(insert, ended)
    added = event_outbox.adding(insert, ended.c.id, ended.c.lock_version, ended.c.tenant).cte("added")
    # Looked up in a hash: a plan for one row would compare each with each.
    was_counted = tuple_(ended.c.program_id, ended.c.tenant).in_(select(swapped.c.program_id, swapped.c.tenant))
    return select(*(ended.c[name] for name in _told(whole)), was_counted.label("counted")).add_cte(durations, added)


def _told(whole: bool) -> list[str]:
    """What is told of an ended row. With `registered`: whether there are webhooks for it."""
    pushed = [column.name for column in PUSHED]
    return [*(EXECUTION_COLUMNS if whole else ["id", "lock_version", "status", "tenant", *pushed]), "registered"]


_COUNTED = ("program_id", "status", "duration_ms", "input_tokens", "output_tokens", "cost")


def _finish(dialect: str, columns: tuple[str, ...], whole: bool, *, counted: bool = False) -> Any:
    c, types = executions.c, _types(columns)
    r = records(dialect, types | {counters.BUCKET: Integer()} if counted else types)
    attempt = func.coalesce(r.c.attempt, c.attempt)
    told = dict.fromkeys([*_told(whole)[:-1], *(_COUNTED if counted else ())])
    return (
        update(executions)
        .where(
            c.id == r.c.id,
            c.lock_version == r.c.lock_version,
            c.tenant == r.c.tenant,
            # An expression that fits no index, so that each row is found by its id. With the index of open rows,
            # PostgreSQL would read all of them, and all that ended since the last vacuum.
            c.status.concat("") == ExecutionStatus.RUNNING,
        )
        .values(
            {name: r.c[name] for name in columns if name not in _WHICH}
            | {
                "attempt": attempt,
                "lock_version": c.lock_version + 1,
                "lease_expires_at": null(),
                "finished_at": NOW,
                "updated_at": NOW,
                "timeline": continued(c.timeline, r.c.status, attempt, c.worker),
            }
        )
        # Whether the end has webhooks: the few tenants with endpoints are hashed once.
        .returning(*(c[name] for name in told), *([r.c[counters.BUCKET]] if counted else []), _REGISTERED)
    )


@lru_cache(maxsize=4)
def retry(dialect: str, columns: tuple[str, ...]) -> Any:
    """Has executions wait in their queues for another attempt. Parameter: `records` of `Retry`, with these columns and
    `delay`. Returns the queue of each, with its time.
    """
    written = [name for name in columns if name not in (*_WHICH, "delay")]
    c, r = executions.c, records(dialect, _types([*_WHICH, *written]) | {"delay": Float()})
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
            lock_version=c.lock_version + 1,
            lease_expires_at=null(),
            not_before=due,
            run_at=due,
            due_at=NEVER,
            **{name: r.c[name] for name in written},
            updated_at=NOW,
            timeline=continued(c.timeline, pending, r.c.attempt, c.worker),
        )
        .returning(c.id, c.lock_version, c.status, c.tenant, *QUEUED)
    )
