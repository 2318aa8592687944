"""A batch as one parameter: a JSON array that a statement reads as a table. So its text does not depend on the size.

PostgreSQL reads it by `jsonb_to_recordset`, SQLite by `json_each`; the rest of a statement is written once for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    ColumnClause,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from store.column_types import UtcDateTime

PARAMETER = "records"


def records(
    dialect: str, columns: Mapping[str, TypeEngine[Any] | type[TypeEngine[Any]]], name: str = PARAMETER
) -> FromClause:
    """A table with these columns, read from the parameter with this name (see `encode`)."""
    typed = [column(name, type_) for name, type_ in columns.items()]
    if dialect == "postgresql":
        source = func.jsonb_to_recordset(cast(bindparam(name, type_=Text), JSONB))
        return source.table_valued(*typed).render_derived(name, with_types=True)
    value = func.json_each(bindparam(name, type_=Text)).table_valued("value", name="each").c.value
    return select(*(type_coerce(_member(value, c), c.type).label(c.name) for c in typed)).subquery(name)


def _member(value: ColumnElement[Any], c: ColumnClause[Any]) -> ColumnElement[Any]:
    """A member of SQLite's JSON, in the form in which the column stores it."""
    if isinstance(c.type, JSON):
        return func.nullif(value.op("->")(f"$.{c.name}"), "null")
    text = value.op("->>")(f"$.{c.name}")
    if isinstance(c.type, Uuid):
        return func.replace(text, "-", "")
    if isinstance(c.type, UtcDateTime):
        return func.substr(text, 1, len("2026-11-25 10:00:00.000000"))
    return text


def encode(rows: Iterable[Mapping[str, Any]], name: str = PARAMETER) -> dict[str, str]:
    """Encode the parameter that `records` reads. Times must be encoded by `moment`."""
    return {name: to_json(list(rows)).decode()}


class Rows(list[Any]):
    """What a statement returned; each row has its columns as attributes."""

    def all(self) -> list[Any]:
        """The rows, as `CursorResult.all` gives them."""
        return self


ALONE = "dspex_alone"
"""The key, in a connection's info, of whether the transaction that begins is for one write only."""


def execute(connection: Connection, statement: Any, parameters: dict[str, Any], *, alone: bool = False) -> Rows:
    """Run a statement of the hot path, which is built once and cached.

    On PostgreSQL its text goes straight to psycopg, which converts the types that such a statement returns: SQLAlchemy
    would describe each column of each result anew, which for one row takes as long as all else that it does here.
    Its listeners hear of the statement, and its errors are SQLAlchemy's, as always.

    Args:
        alone: it is all that this write does, if it succeeds. If its transaction is for this write only (`ALONE`), and
            has no statement yet, it is committed at once: that takes one round trip instead of three.
    """
    if connection.dialect.name != "postgresql":
        result = connection.execute(statement, parameters)
        return Rows(result.all()) if result.returns_rows else Rows()
    from psycopg.rows import namedtuple_row  # where there is such a connection, it has been imported

    text, given = _text(statement, connection.dialect)
    given = given | parameters
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.dbapi_connection
    cursor = driver.cursor(row_factory=namedtuple_row)
    for listener in connection.dispatch.before_cursor_execute:
        listener(connection, cursor, text, given, None, False)
    # psycopg sends the BEGIN with the first statement, and a COMMIT only if it has.
    alone = alone and connection.info.get(ALONE, False) and driver.info.transaction_status == _NOT_BEGUN
    try:
        if alone:
            driver.autocommit = True
        cursor.execute(text, given)
        if alone:
            driver.autocommit = False
        return Rows(cursor.fetchall()) if cursor.pgresult.nfields else Rows()
    except BaseException as error:  # noqa: BLE001 - it is raised, as SQLAlchemy's
        if alone:
            connection.invalidate(error)  # psycopg would go on without transactions
        connection._handle_dbapi_exception(error, text, given, cursor, None)  # noqa: SLF001 - nothing public does


_NOT_BEGUN: Final = 0
"""libpq's PQTRANS_IDLE."""


@lru_cache(maxsize=64)
def _text(statement: Any, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The SQL text of a statement for psycopg, and the values of the parameters that are fixed in it."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), {name: value for name, value in compiled.params.items() if value is not None}


def moment(value: datetime | None) -> str | None:
    """Encode a time for a batch: PostgreSQL reads the whole text, SQLite the beginning."""
    return None if value is None else value.astimezone(UTC).isoformat(" ", "microseconds")


def writes_in_with(dialect: str) -> bool:
    """Whether one statement can write to several tables, by `WITH`. SQLite needs a statement for each."""
    return dialect == "postgresql"


def upsert(connection: Connection) -> Any:
    """The dialect's own `insert`, which has `on_conflict_do_update` and `on_conflict_do_nothing`."""
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
