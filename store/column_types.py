"""Column types and expressions that mean the same on PostgreSQL and on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Float
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; Python's None is SQL's NULL."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond: `timestamptz` on PostgreSQL, ISO text on SQLite. In Python, always aware."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801
    """The time of the database's clock plus `seconds`. All leases use this clock."""

    type: TypeEngine[Any] = UtcDateTime()
    inherit_cache = True
    name = "database_now"


@compiles(database_now)
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's clock has milliseconds; padded to microseconds, which SQLAlchemy writes.
    offset = "".join(f", ({compiler.process(clause, **kw)}) || ' seconds'" for clause in element.clauses)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now'{offset}) || '000')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    # Not now(), which is the start of the transaction: it may have waited for a lock since.
    offset = "".join(
        f" + make_interval(secs => CAST({compiler.process(clause, **kw)} AS double precision))"
        for clause in element.clauses
    )
    return f"(clock_timestamp(){offset})"


class statement_now(database_now):  # noqa: N801
    """The time at which the statement began: the same for every row, so that an index on a time can be used."""

    inherit_cache = True


@compiles(statement_now, "postgresql")
def _postgresql_statement(element: statement_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001
    return "statement_timestamp()"


class later_than(FunctionElement[datetime]):  # noqa: N801
    """The time of the database's clock, but always after another time, if there is one: `later_than(value)`."""

    type: TypeEngine[Any] = UtcDateTime()
    inherit_cache = True
    name = "later_than"


@compiles(later_than)
def _sqlite_later(element: later_than, compiler: SQLCompiler, **kw: Any) -> str:
    [moment] = (compiler.process(clause, **kw) for clause in element.clauses)
    after = f"strftime('%Y-%m-%d %H:%M:%f', {moment}, '+0.001 seconds')"
    return f"(max(strftime('%Y-%m-%d %H:%M:%f', 'now'), coalesce({after}, '')) || '000')"


@compiles(later_than, "postgresql")
def _postgresql_later(element: later_than, compiler: SQLCompiler, **kw: Any) -> str:
    [moment] = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"greatest(clock_timestamp(), {moment} + interval '1 microsecond')"


class seconds_until(FunctionElement[float]):  # noqa: N801
    """Seconds from the time of the database's clock to another: `seconds_until(column)`; NULL for NULL."""

    type: TypeEngine[Any] = Float()
    inherit_cache = True
    name = "seconds_until"


@compiles(seconds_until)
def _sqlite_until(element: seconds_until, compiler: SQLCompiler, **kw: Any) -> str:
    [moment] = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"((julianday({moment}) - julianday('now')) * 86400.0)"


@compiles(seconds_until, "postgresql")
def _postgresql_until(element: seconds_until, compiler: SQLCompiler, **kw: Any) -> str:
    [moment] = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST(EXTRACT(EPOCH FROM {moment} - clock_timestamp()) AS double precision)"
