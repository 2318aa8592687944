"""Cancels many executions in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from dspex import ExecutionStatus
from dspex.ids import DEFAULT_TENANT
from store.database.identity import Identity, is_one_of
from store.executions.rows import Execution, execution_of
from store.executions.single import cancelling
from store.executions.unrun import count_and_tell
from store.tables import executions

MAX_CANCELS = 200
"""The most executions to cancel in one transaction, which are read whole, and whose events are sent together."""


class Cancelled(NamedTuple):
    """What a transaction has cancelled.

    Attributes:
        executions: those that have ended now, and those that run and are asked to stop.
        locked: those that another transaction is just changing; cancel them one by one.
    """

    executions: list[Execution]
    locked: list[UUID]


def cancel_many(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    by: str,
    shard: int = 0,
    tenant: str = DEFAULT_TENANT,
    event_in: float = 30.0,
    webhook_in: float = 0.0,
) -> Cancelled:
    """Cancel those of these executions that have not ended, each as `store.executions.single.cancel` does.

    Waits for no row that is locked, so it cannot deadlock with a batch that ends others of the same program.
    """
    c = executions.c
    # Expressions that fit no index, so that each row is found by its id, as in `statements.finish`.
    unended = c.status.concat("").in_([ExecutionStatus.PENDING, ExecutionStatus.RUNNING])
    which = (c.id.in_(ids), c.tenant.concat("") == tenant, unended, ~c.cancel_requested)
    held = connection.execute(select(c.id, c.tenant).where(*which).order_by(c.id).with_for_update(skip_locked=True))
    # By their ids: PostgreSQL might join what a subquery finds with the whole table.
    these = is_one_of(executions, [Identity(*row) for row in held])
    rows = connection.execute(cancelling(these, by)).all()
    ended = [row for row in rows if row.status == ExecutionStatus.CANCELLED]
    count_and_tell(connection, ended, shard=shard, event_in=event_in, webhook_in=webhook_in)
    # In a new statement, which sees what has been committed since.
    left = connection.execute(select(c.id).where(*which)).scalars().all()
    return Cancelled([execution_of(row) for row in rows], list(left))
