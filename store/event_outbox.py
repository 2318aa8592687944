"""The event outbox: the events of ends, and their answers, that the broker has not confirmed yet.

The transaction that ends an execution inserts a row, which is deleted when the broker has confirmed. The process that
ended the execution sends the event at once. The relay sends it again when the row is due, at growing intervals.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Float,
    Integer,
    String,
    Uuid,
    bindparam,
    case,
    delete,
    exists,
    select,
    tuple_,
    update,
)

from dspex.ids import DEFAULT_TENANT
from store.column_types import database_now, statement_now
from store.database.batch import encode, execute, records, upsert
from store.database.identity import Identity
from store.tables import event_outbox

DUE_IN = "due_in"
MAX_DOUBLINGS = 6
"""How often the interval between two tries doubles."""


_DUE = event_outbox.c.due_at < statement_now()


class OutboxEntry(NamedTuple):
    """An end whose event must be sent. `lock_version`: that of the ended row."""

    execution_id: UUID
    lock_version: int
    tenant: str = DEFAULT_TENANT


def add(connection: Connection, ends: Collection[OutboxEntry], due_in: float) -> None:
    """Add the events of ends.

    Args:
        due_in: seconds until the relay sends them, if they are not confirmed by then.
    """
    rows = encode(entry._asdict() for entry in ends)
    execute(connection, _add(connection.dialect.name, upsert(connection)), rows | {DUE_IN: due_in})


def pending(connection: Connection, ids: Collection[UUID], *, tenant: str = DEFAULT_TENANT) -> set[UUID]:
    """The executions, of these of a tenant, with an unconfirmed event."""
    c = event_outbox.c
    return set(connection.execute(select(c.execution_id).where(c.execution_id.in_(ids), c.tenant == tenant)).scalars())


def sent(connection: Connection, ends: Collection[OutboxEntry]) -> None:
    """Delete confirmed events. The event of a later end of the same execution stays."""
    execute(connection, _sent(connection.dialect.name), encode(entry._asdict() for entry in ends))


def forget(connection: Connection, ids: Collection[UUID], *, tenant: str = DEFAULT_TENANT) -> None:
    """Delete the events of executions whose end is undone."""
    connection.execute(
        delete(event_outbox).where(event_outbox.c.execution_id.in_(ids), event_outbox.c.tenant == tenant)
    )


def anything_due(connection: Connection) -> bool:
    """Whether an event is due. Reads the whole table, which is small and has no index for this."""
    return bool(connection.execute(select(exists(select(event_outbox.c.execution_id).where(_DUE)))).scalar_one())


def due(connection: Connection, again_in: float, limit: int) -> list[Identity]:
    """Take due events. They are due again in `again_in` seconds, which doubles with each try up to 64 times."""
    c = event_outbox.c
    key = tuple_(c.execution_id, c.tenant)
    picked = select(c.execution_id, c.tenant).where(_DUE).limit(limit).with_for_update(skip_locked=True).cte("due")
    doublings = case((c.tries < MAX_DOUBLINGS, c.tries), else_=MAX_DOUBLINGS)
    pause = bindparam("again_in", again_in, Float) * bindparam("one", 1).op("<<")(doublings)
    statement = (
        update(event_outbox)
        .where(key.in_(select(picked.c.execution_id, picked.c.tenant)))
        .values(due_at=database_now(pause), tries=c.tries + 1)
        .returning(c.execution_id, c.tenant)
    )
    return [Identity(*row) for row in connection.execute(statement)]


@lru_cache(maxsize=2)
def _add(dialect: str, insert: Any) -> Any:
    r = records(dialect, _ENTRY)
    return adding(insert, r.c.execution_id, r.c.lock_version, r.c.tenant)


def adding(insert: Any, execution_id: Any, lock_version: Any, tenant: Any) -> Any:
    """A statement that adds an event for each row of a table with these columns. Parameter: `DUE_IN`, in seconds."""
    due_at = database_now(bindparam(DUE_IN, type_=Float))
    # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
    rows = select(execution_id, lock_version, tenant, due_at).where(execution_id.is_not(None))
    statement = insert(event_outbox).from_select(["execution_id", "lock_version", "tenant", "due_at"], rows)
    # An event of the end before a replay may still be in the outbox.
    new = {name: statement.excluded[name] for name in ("lock_version", "due_at")}
    return statement.on_conflict_do_update(index_elements=list(event_outbox.primary_key), set_=new | {"tries": 0})


_ENTRY: dict[str, Any] = {"execution_id": Uuid(), "lock_version": Integer(), "tenant": String()}


@lru_cache(maxsize=2)
def _sent(dialect: str) -> Any:
    c, r = event_outbox.c, records(dialect, _ENTRY)
    if dialect == "sqlite":  # with EXISTS, it would read the batch again for each row
        entry = tuple_(c.execution_id, c.tenant, c.lock_version)
        return delete(event_outbox).where(entry.in_(select(r.c.execution_id, r.c.tenant, r.c.lock_version)))
    told = select(r.c.execution_id).where(
        r.c.execution_id == c.execution_id, r.c.tenant == c.tenant, r.c.lock_version == c.lock_version
    )
    return delete(event_outbox).where(c.execution_id.in_(select(r.c.execution_id)), told.exists())
