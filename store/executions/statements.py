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
    literal_column,
    null,
    or_,
    select,
    update,
)

from dspex import ExecutionStatus, ProgramStatus
from store.batch import records
from store.tables import NOW, executions, programs
from store.timeline import begun, continued
from store.types import Json, database_now


def status_in(*statuses: ExecutionStatus) -> ColumnElement[bool]:
    """The status is one of these, as the partial indexes write it.

    Part of the SQL text: by parameters, PostgreSQL could not tell that a partial index is enough.
    """
    return executions.c.status.in_([literal_column(f"'{status}'") for status in statuses])


PENDING = status_in(ExecutionStatus.PENDING)
RUNNING = status_in(ExecutionStatus.RUNNING)
OPEN = _OPEN = status_in(ExecutionStatus.PENDING, ExecutionStatus.RUNNING)
UNSUCCESSFUL = status_in(ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)

_REQUEST: dict[str, Any] = {
    "id": Uuid(),
    "program_id": Uuid(),
    "inputs": Json,
    "options": Json,
    "request_digest": String(),
    "source": Text(),
    "traceparent": String(),
    "tenant": String(),
}


@lru_cache(maxsize=2)
def _claim(dialect: str, insert: Any) -> Any:
    """Parameters: `records` of requests, `worker`, `lease_seconds`."""
    c, r = executions.c, records(dialect, _REQUEST)
    worker = bindparam("worker", type_=String)
    lease = database_now(bindparam("lease_seconds", type_=Float))
    ready = case((programs.c.status == ProgramStatus.READY, programs.c.backend_id), else_=null())
    values = {name: r.c[name] for name in _REQUEST} | {
        "status": bindparam("running", ExecutionStatus.RUNNING, String),
        "attempt": bindparam("first", 1, Integer),
        "lock_version": bindparam("first", 1, Integer),
        "worker": worker,
        "lease_expires_at": lease,
        "backend_id": ready,
        "started_at": NOW,
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(bindparam("running", ExecutionStatus.RUNNING, String), literal_column("1"), worker),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
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
            "timeline": continued(c.timeline, new.status, c.attempt + 1, new.worker),
        },
        where=(c.request_digest == new.request_digest)
        & (c.tenant == new.tenant)
        & or_(PENDING, RUNNING & (c.lease_expires_at < NOW)),
    ).returning(c.id, c.attempt, c.lock_version, c.backend_id, c.cancel_requested)


@lru_cache(maxsize=2)
def create(dialect: str, insert: Any) -> Any:
    """Parameters: `records` of requests, `due_in`, `by`."""
    r = records(dialect, _REQUEST)
    values = {name: r.c[name] for name in _REQUEST} | {
        "status": bindparam("pending", ExecutionStatus.PENDING, String),
        "attempt": bindparam("none", 0, Integer),
        "lock_version": bindparam("first", 1, Integer),
        "lease_expires_at": database_now(bindparam("due_in", type_=Float)),
        "inserted_at": NOW,
        "updated_at": NOW,
        "timeline": begun(
            bindparam("pending", ExecutionStatus.PENDING, String), literal_column("0"), bindparam("by", type_=String)
        ),
    }
    statement = insert(executions).from_select(list(values), _of_programs(r, values))
    return statement.on_conflict_do_nothing(index_elements=[executions.c.id])


def _of_programs(r: Any, values: dict[str, Any]) -> Any:
    return (
        select(*values.values())
        .join_from(r, programs, (programs.c.id == r.c.program_id) & (programs.c.tenant == r.c.tenant))
        .where(r.c.id.is_not(None))
        # In one order, so that two workers with the same requests wait for each other and do not deadlock.
        .order_by(r.c.id)
    )


@lru_cache(maxsize=2)
def _finish(dialect: str) -> Any:
    """Parameter: `records` of ends."""
    c = executions.c
    results: dict[str, Any] = {
        "outputs": Json,
        "error": Json,
        "usage": Json,
        "duration_ms": Float(),
        "error_code": String(),
        "input_tokens": BigInteger(),
        "output_tokens": BigInteger(),
        "cost": Float(),
    }
    r = records(dialect, {"id": Uuid(), "tenant": String(), "lock_version": Integer(), "status": String()} | results)
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
                "lock_version": c.lock_version + 1,
                "lease_expires_at": null(),
                "finished_at": NOW,
                "updated_at": NOW,
                "timeline": continued(c.timeline, r.c.status, c.attempt, c.worker),
            }
        )
        .returning(c.id, c.lock_version, c.status)
    )
