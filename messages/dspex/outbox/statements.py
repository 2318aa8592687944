"""The statements of a relay on the outbox table. They take a connection and never commit; the database is the clock.

A claim sets `due_at` to a time after publishing must be over. So no row is locked while a relay talks to the broker,
and none is lost if the relay crashes.
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
    """A claimed row: a message to publish. `attempts`: how often the broker has refused it."""

    id: UUID
    type: str
    body: bytes
    attempts: int


class Refusal(NamedTuple):
    """A row that the broker refused: the reason, and the seconds until the next attempt."""

    id: UUID
    error: str
    again_in: float


class database_now(FunctionElement[datetime]):  # noqa: N801
    """The start of the transaction by the database's clock, plus `seconds`."""

    type: TypeEngine[Any] = DateTime(timezone=True)
    inherit_cache = True
    name = "database_now"


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's clock has milliseconds; padded to microseconds, which SQLAlchemy expects in a datetime.
    offset = "".join(f", ({compiler.process(clause, **kw)}) || ' seconds'" for clause in element.clauses)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now'{offset}) || '000')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not clock_timestamp(): its value changes from row to row, so no index can be used.
    offset = "".join(
        f" + make_interval(secs => CAST({compiler.process(clause, **kw)} AS double precision))"
        for clause in element.clauses
    )
    return f"(now(){offset})"


NOW = database_now()


def claim(connection: Connection, table: Table, limit: int, seconds: float) -> list[Row]:
    """Claim up to `limit` due rows for so many seconds, in their order. Safe with any number of concurrent callers."""
    c = table.c
    due = select(c.id).where(c.due_at <= NOW).order_by(c.due_at, c.id).limit(limit).with_for_update(skip_locked=True)
    # A CTE is run once. A plain subquery may be run again for each row, with a new limit each time.
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
    """Release the claim of rows that could not be sent. They are due again, in their old order."""
    c = table.c
    connection.execute(update(table).where(c.id.in_(ids)).values(due_at=c.inserted_at, last_error=error))


def postpone(connection: Connection, table: Table, refusals: Collection[Refusal]) -> None:
    """Schedule the next attempt of refused rows."""
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
