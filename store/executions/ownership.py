"""Of which process an execution is that waits, where a process leaves those of others alone (`choose(only=…)`)."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, or_, update

from store.database.identity import Identity, is_one_of
from store.executions.statements import PENDING
from store.tables import executions


def take_over(connection: Connection, worker: str, which: Collection[Identity]) -> None:
    """Make these executions the worker's, as far as they wait."""
    c = executions.c
    others = or_(c.worker.is_(None), c.worker != worker)
    connection.execute(update(executions).where(is_one_of(executions, which), PENDING, others).values(worker=worker))
