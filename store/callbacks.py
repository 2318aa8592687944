"""What is still owed for executions that have ended: their events, and the answers that are waited for.

The row is written by the transaction that ends the execution, and goes when the broker has confirmed. Whoever ended the
execution sends at once; the relay sends what is still there when it is due, at growing intervals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Float, String, Uuid, bindparam, case, delete, select, update

from store.batch import encode, records, upsert
from store.tables import NOW, callbacks
from store.types import database_now

MAX_DOUBLINGS = 6
"""Of the interval between two tries."""


def owe(connection: Connection, executions: Mapping[UUID, str], due_in: float) -> None:
    """Note that what these executions came to is to be told.

    Args:
        executions: their tenants, by id.
        due_in: seconds until the relay sends it, unless it has been sent by then.
    """
    rows = [{"execution_id": id_, "tenant": tenant} for id_, tenant in executions.items()]
    connection.execute(_owe(connection.dialect.name, upsert(connection)), encode(rows) | {"due_in": due_in})


def owed(connection: Connection, ids: Collection[UUID]) -> set[UUID]:
    """Which of these executions something is still owed for."""
    found = connection.execute(select(callbacks.c.execution_id).where(callbacks.c.execution_id.in_(ids)))
    return set(found.scalars())


def sent(connection: Connection, ids: Collection[UUID]) -> None:
    """The broker has them."""
    connection.execute(_sent(connection.dialect.name), encode({"execution_id": id_} for id_ in ids))


def due(connection: Connection, again_in: float, limit: int) -> list[UUID]:
    """Take what is due: it is due again in `again_in` seconds, twice as long with each try, 64 times at most."""
    c = callbacks.c
    picked = select(c.execution_id).where(c.due_at < NOW).limit(limit).with_for_update(skip_locked=True).cte("due")
    doublings = case((c.tries < MAX_DOUBLINGS, c.tries), else_=MAX_DOUBLINGS)
    pause = bindparam("again_in", again_in, Float) * bindparam("one", 1).op("<<")(doublings)
    statement = (
        update(callbacks)
        .where(c.execution_id.in_(select(picked.c.execution_id)))
        .values(due_at=database_now(pause), tries=c.tries + 1)
        .returning(c.execution_id)
    )
    return list(connection.execute(statement).scalars())


@lru_cache(maxsize=2)
def _owe(dialect: str, insert: Any) -> Any:
    c, r = callbacks.c, records(dialect, {"execution_id": Uuid(), "tenant": String()})
    rows = select(r.c.execution_id, r.c.tenant, database_now(bindparam("due_in", type_=Float))).where(
        r.c.execution_id.is_not(None)
    )
    statement = insert(callbacks).from_select(["execution_id", "tenant", "due_at"], rows)
    # One that was replayed may still owe for its first end.
    return statement.on_conflict_do_update(
        index_elements=[c.execution_id], set_={"due_at": statement.excluded.due_at, "tries": 0}
    )


@lru_cache(maxsize=2)
def _sent(dialect: str) -> Any:
    r = records(dialect, {"execution_id": Uuid()})
    return delete(callbacks).where(callbacks.c.execution_id.in_(select(r.c.execution_id)))
