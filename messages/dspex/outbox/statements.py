"""The statements of a relay on the table of an outbox. They take a connection and never commit; time is the database's.

A claim moves `due_at` behind the time that publishing may take: no row stays locked, and none is lost, while a relay
talks to the broker.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, DateTime, Float, Table, bindparam, delete, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


class Row(NamedTuple):
    """A claimed row: a message that is to be published. `attempts`: how often the broker has refused it."""

    id: UUID
    type: str
    body: bytes
    attempts: int


class Refusal(NamedTuple):
    """A row that the broker refused, why, and in how many seconds it is tried again."""

    id: UUID
    error: str
    again_in: float


class database_now(FunctionElement[datetime]):  # noqa: N801
    """When the transaction began by the database's clock, `seconds` later."""

    type: TypeEngine[Any] = DateTime(timezone=True)
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Milliseconds are what SQLite's clock has; padded to the microseconds in which SQLAlchemy reads a datetime.
    offset = "".join(f", ({compiler.process(clause, **kw)}) || ' seconds'" for clause in element.clauses)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now'{offset}) || '000')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not clock_timestamp(): an index cannot be searched for what changes from row to row.
    offset = "".join(
        f" + make_interval(secs => CAST({compiler.process(clause, **kw)} AS double precision))"
        for clause in element.clauses
    )
    return f"(now(){offset})"


NOW = database_now()


def claim(connection: Connection, table: Table, limit: int, seconds: float) -> list[Row]:
    """Take up to `limit` rows that are due, for so long, in their order. Any number of callers may do this at once."""
    c = table.c
    due = select(c.id).where(c.due_at <= NOW).order_by(c.due_at, c.id).limit(limit).with_for_update(skip_locked=True)
    # A common table expression is run once; a plain subquery may be run again for each row, each time with a new limit.
    claimed = connection.execute(
        update(table)
        .where(c.id.in_(select(due.cte("due").c.id)))
        .values(due_at=database_now(bindparam("seconds", seconds, Float)))
        .returning(c.id, c.type, c.body, c.attempts, c.inserted_at)
    ).all()
    ordered = sorted(claimed, key=lambda row: (row.inserted_at, row.id))
    return [Row(row.id, row.type, row.body, row.attempts) for row in ordered]


def forget(connection: Connection, table: Table, ids: Collection[UUID]) -> None:
    """Delete rows that the broker has confirmed."""
    connection.execute(delete(table).where(table.c.id.in_(ids)))


def put_back(connection: Connection, table: Table, ids: Collection[UUID], error: str) -> None:
    """Give up the claim of rows that could not be sent: they are due, each in its old place."""
    c = table.c
    connection.execute(update(table).where(c.id.in_(ids)).values(due_at=c.inserted_at, last_error=error))


def postpone(connection: Connection, table: Table, refusals: Collection[Refusal]) -> None:
    """Have refused rows tried again later."""
    c = table.c
    connection.execute(
        update(table)
        .where(c.id == bindparam("row_id"))
        .values(
            attempts=c.attempts + 1,
            last_error=bindparam("error"),
            due_at=database_now(bindparam("again_in", type_=Float)),
        ),
        [{"row_id": row_id, "error": error, "again_in": again_in} for row_id, error, again_in in refusals],
    )
