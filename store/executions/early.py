"""Early cancels: who cancels an execution whose command has not been accepted yet. Each is kept for a moment only.

The claim that makes the row of such an execution marks it `cancel_requested` (`store.executions.statements.claim`), so
it does not run. The claim locks what it finds here: once an early cancel is taken back and the transaction committed,
no execution is cancelled by it any more, or its row is there.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, CursorResult, delete, exists, select

from dspex.ids import DEFAULT_TENANT
from store.column_types import database_now
from store.database.batch import upsert
from store.tables import NOW, early_cancels

KEPT_SECONDS = 60.0
"""After so long nobody waits for it any more, as its worker has died: it would have renewed or removed it."""

_OLD = early_cancels.c.inserted_at < database_now(-KEPT_SECONDS)


def leave(connection: Connection, execution_id: UUID, *, by: str, tenant: str = DEFAULT_TENANT) -> None:
    """Have an execution cancelled as soon as it is accepted. Renews one that is there."""
    statement = upsert(connection)(early_cancels).values(
        execution_id=execution_id, tenant=tenant, by=by, inserted_at=NOW
    )
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(early_cancels.primary_key), set_={"inserted_at": NOW})
    )


def take_back(connection: Connection, execution_id: UUID, *, tenant: str = DEFAULT_TENANT) -> None:
    """Remove an early cancel. Waits for a claim that has found it."""
    c = early_cancels.c
    connection.execute(delete(early_cancels).where(c.execution_id == execution_id, c.tenant == tenant))


def anything_old(connection: Connection) -> bool:
    """Whether an early cancel was left by a worker that has died. Reads the whole table, which is small."""
    return bool(connection.execute(select(exists(select(early_cancels.c.execution_id).where(_OLD)))).scalar_one())


def sweep(connection: Connection) -> int:
    """Remove those of workers that have died. Returns how many."""
    return cast("CursorResult[Any]", connection.execute(delete(early_cancels).where(_OLD))).rowcount
