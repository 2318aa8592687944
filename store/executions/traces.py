"""Traces: the steps of an execution's last traced attempt, in a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from dspex.ids import DEFAULT_TENANT
from store.database.batch import encode, execute, records, upsert
from store.executions.rows import Finish, Retry
from store.tables import NOW, execution_traces

_KEPT = ("execution_id", "tenant", "attempt", "steps", "shortened")


@dataclass(frozen=True)
class KeptTrace:
    """A trace as read from its row. `steps`: in their JSON form."""

    execution_id: UUID
    attempt: int
    steps: list[dict[str, Any]]
    shortened: bool
    inserted_at: datetime


def keep(connection: Connection, ends: Sequence[Finish | Retry]) -> None:
    """Keep the traces of these attempts, as far as they have one, in place of those of earlier attempts.

    Writes nothing if none has. Call it in the transaction that ends them, with the rows locked.
    """
    traced = [
        {
            "execution_id": item.id,
            "tenant": item.tenant,
            "attempt": item.trace.attempt,
            "steps": list(item.trace.steps),
            "shortened": item.trace.shortened,
        }
        for item in ends
        if item.trace is not None
    ]
    if traced:
        execute(connection, _keep(connection.dialect.name, upsert(connection)), encode(traced))


def get(connection: Connection, execution_id: UUID, *, tenant: str = DEFAULT_TENANT) -> KeptTrace | None:
    """The trace of an execution, or None."""
    c = execution_traces.c
    columns = (c.execution_id, c.attempt, c.steps, c.shortened, c.inserted_at)
    row = connection.execute(select(*columns).where(c.execution_id == execution_id, c.tenant == tenant)).one_or_none()
    return None if row is None else KeptTrace(*row)


@lru_cache(maxsize=2)
def _keep(dialect: str, insert: Any) -> Any:
    c = execution_traces.c
    r = records(dialect, {name: c[name].type for name in _KEPT})
    # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
    rows = select(*(r.c[name] for name in _KEPT), NOW).where(r.c.execution_id.is_not(None))
    statement = insert(execution_traces).from_select([*_KEPT, "inserted_at"], rows)
    new = {name: statement.excluded[name] for name in (*_KEPT[2:], "inserted_at")}
    return statement.on_conflict_do_update(index_elements=list(execution_traces.primary_key), set_=new)
