"""The timeline of an execution: its changes, with time, attempt and author. Keeps the last `MAX_ENTRIES`.


An array of `{"status", "at", "attempt", "by"}` in the row, written by the statement that makes the change. `status` is
the new status, or `cancel_requested` for a cancel of a running execution, or `discarded` for a failed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from store.column_types import Json

MAX_ENTRIES = 50
CANCEL_REQUESTED = "cancel_requested"
DISCARDED = "discarded"


class TimelineEntry(NamedTuple):
    """One change. `by` is a worker, a producer's source, or a principal."""

    status: str
    at: datetime
    attempt: int
    by: str | None


def read(entries: Iterable[Mapping[str, Any]]) -> tuple[TimelineEntry, ...]:
    """Read the entries in a column."""
    return tuple(
        TimelineEntry(e["status"], datetime.fromisoformat(e["at"]).astimezone(UTC), e["attempt"], e["by"])
        for e in entries
    )


class begun(FunctionElement[Any]):  # noqa: N801
    """A new timeline: `begun(status, attempt, by)`."""

    type: TypeEngine[Any] = Json
    inherit_cache = True
    name = "begun"


class continued(FunctionElement[Any]):  # noqa: N801
    """A timeline with one more entry: `continued(column, status, attempt, by)`."""

    type: TypeEngine[Any] = Json
    inherit_cache = True
    name = "continued"


def _postgresql_entry(status: str, attempt: str, by: str) -> str:
    return (
        f"jsonb_build_object('status', CAST({status} AS text), 'at', clock_timestamp(), "
        f"'attempt', CAST({attempt} AS integer), 'by', CAST({by} AS text))"
    )


def _sqlite_entry(status: str, attempt: str, by: str) -> str:
    at = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
    return f"json_object('status', {status}, 'at', {at}, 'attempt', {attempt}, 'by', {by})"


def _compiled(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> list[str]:
    return [compiler.process(clause, **kw) for clause in element.clauses]


@compiles(begun)
def _sqlite_begun(element: begun, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_array({_sqlite_entry(*_compiled(element, compiler, **kw))})"


@compiles(begun, "postgresql")
def _postgresql_begun(element: begun, compiler: SQLCompiler, **kw: Any) -> str:
    return f"jsonb_build_array({_postgresql_entry(*_compiled(element, compiler, **kw))})"


@compiles(continued)
def _sqlite_continued(element: continued, compiler: SQLCompiler, **kw: Any) -> str:
    column, *parts = _compiled(element, compiler, **kw)
    kept = f"CASE WHEN json_array_length({column}) < {MAX_ENTRIES} THEN {column} ELSE json_remove({column}, '$[0]') END"
    return f"json_insert({kept}, '$[#]', {_sqlite_entry(*parts)})"


@compiles(continued, "postgresql")
def _postgresql_continued(element: continued, compiler: SQLCompiler, **kw: Any) -> str:
    column, *parts = _compiled(element, compiler, **kw)
    kept = f"CASE WHEN jsonb_array_length({column}) < {MAX_ENTRIES} THEN {column} ELSE {column} - 0 END"
    return f"(({kept}) || {_postgresql_entry(*parts)})"
