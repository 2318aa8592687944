"""Queries for executions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Uuid,
    and_,
    bindparam,
    case,
    false,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from dspex import ExecutionStatus
from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT
from dspex.text import storable
from store.database import pages
from store.database.batch import encode, records
from store.database.identity import Identity, is_one_of
from store.database.pages import DEFAULT_LIMIT, Page, Searched
from store.executions.rows import Execution, execution_of, without_extras
from store.executions.statements import OPEN, PENDING, RUNNING, UNSUCCESSFUL
from store.tables import executions

_ALL = select(executions)


class Result(NamedTuple):
    """The result of an execution that has ended, with `error` and `usage` in their stored form."""

    id: UUID
    status: str
    outputs: dict[str, Any] | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None
    duration_ms: float | None
    extra_outputs: Mapping[str, Any] = MappingProxyType({})


_OPEN = {ExecutionStatus.PENDING: PENDING, ExecutionStatus.RUNNING: RUNNING}


def get(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> list[Execution]:
    """The executions with these ids, as far as they exist, in no order."""
    c = executions.c
    return [execution_of(row) for row in connection.execute(_ALL.where(c.id.in_(ids), c.tenant == tenant))]


def of_all_tenants(connection: Connection, which: Collection[Identity]) -> list[Execution]:
    """These executions, as far as they exist, in no order. For workers, which serve every tenant."""
    if not which:
        return []
    return [execution_of(row) for row in connection.execute(_ALL.where(is_one_of(executions, which)))]


def ended(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> list[Execution]:
    """The executions with these ids that have ended, in no order."""
    c = executions.c
    found = connection.execute(_ALL.where(c.id.in_(ids), c.tenant == tenant, ~OPEN))
    return [execution_of(row) for row in found]


def results(connection: Connection, ids: Sequence[UUID], *, tenant: str = DEFAULT_TENANT) -> list[Result]:
    """The results of the executions with these ids that have ended, in no order. Reads many cheaply."""
    if not ids:
        return []
    statement = _results(connection.dialect.name)
    found = connection.execute(statement, encode([{"id": id_} for id_ in ids]) | {"tenant": tenant})
    return [_result(Result(*row)) for row in found.all()]


def _result(read: Result) -> Result:
    outputs, extras = without_extras(read.outputs)
    return read._replace(outputs=outputs, extra_outputs=extras) if extras else read


@lru_cache(maxsize=2)
def _results(dialect: str) -> Any:
    c, r = executions.c, records(dialect, {"id": Uuid()})
    ended = c.status.in_([ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED])
    return (
        select(c.id, c.status, c.outputs, c.error, c.usage, c.duration_ms)
        # Expressions that fit no index, so that each row is found by its id.
        .where(
            c.id.in_(select(r.c.id)), c.tenant.concat("") == bindparam("tenant"), case((ended, true()), else_=false())
        )
    )


MOST_COUNTED = 100_000
"""How many rows `count` reads at most, which bounds its cost."""


MOST_SEARCHED = 20_000
"""How many rows a page by metadata looks through at most, which bounds its cost."""


class Counted(NamedTuple):
    """The number of executions by status, without zeros.

    Attributes:
        complete: whether all rows were read.
        oldest: when the oldest row that was read was inserted.
    """

    by_status: dict[ExecutionStatus, int]
    complete: bool
    oldest: datetime | None


def count(
    connection: Connection,
    program_id: UUID | None = None,
    *,
    error_code: str | None = None,
    metadata: Mapping[str, str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str = DEFAULT_TENANT,
    most: int = MOST_COUNTED,
) -> Counted:
    """Count the newest executions by status that match all given conditions.

    Args:
        since, until: they were inserted at or after the one, and before the other.
        metadata: they have all these values.
        most: how many rows to read, in the order of an index. Only these are compared with the error code and the
            metadata, so what is rare is not searched in all rows.
    """
    c = executions.c
    conditions = _conditions(program_id, None, since, until, None, None, tenant)
    # Part of the text: for a parameter, PostgreSQL estimates a tenth of the table.
    limit: ColumnElement[int] = literal_column(str(int(most)))
    columns: list[ColumnElement[Any]] = [c.status, c.inserted_at]
    columns += [] if error_code is None else [c.error_code]
    columns += [c.metadata] if metadata else []
    newest = select(*columns).where(*conditions).order_by(c.inserted_at.desc()).limit(limit).subquery("newest").c
    wanted = true() if error_code is None else newest.error_code == error_code
    if metadata:
        wanted &= _said(connection.dialect.name, newest.metadata, metadata)
    found = connection.execute(
        select(
            newest.status,
            func.count().label("seen"),
            func.count(case((wanted, 1))).label("counted"),
            func.min(newest.inserted_at).label("oldest"),
        ).group_by(newest.status)
    ).all()
    return Counted(
        {ExecutionStatus(row.status): row.counted for row in found if row.counted},
        sum(row.seen for row in found) < most,
        min((row.oldest for row in found), default=None),
    )


def page(
    connection: Connection,
    *,
    program_id: UUID | None = None,
    status: ExecutionStatus | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    error_code: str | None = None,
    discarded: bool | None = None,
    metadata: Mapping[str, str] | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
    most: int = MOST_SEARCHED,
) -> Page[Execution]:
    """Executions that match all given conditions, newest first.

    Args:
        since, until: they were inserted at or after the one, and before the other.
        metadata: they have all these values.
        most: with metadata, how many rows a page looks through at most. If it ends there, it may be short or empty.

    Raises:
        InvalidValues: the cursor or the limit is wrong.
    """
    conditions = _conditions(program_id, status, since, until, error_code, discarded, tenant)
    searched = None
    if metadata:
        conditions.append(_said(connection.dialect.name, executions.c.metadata, metadata))
        searched = Searched(_conditions(program_id, None, since, until, None, None, tenant), most)
    statement = _ALL.where(*conditions)
    return pages.read(connection, statement, executions, execution_of, cursor=cursor, limit=limit, searched=searched)


def _said(dialect: str, column: ColumnElement[Any], metadata: Mapping[str, str]) -> ColumnElement[bool]:
    """The condition that the metadata in the column has all these values."""
    if any(storable(text) != text for text in (*metadata, *metadata.values())):
        return false()
    if dialect == "postgresql":
        return type_coerce(column, JSONB).contains(dict(metadata))
    # Not a path to the member, in which SQLite reads a quote in a name as its end.
    return and_(*(_member(column, name, value) for name, value in metadata.items()))


def _member(column: ColumnElement[Any], name: str, value: str) -> ColumnElement[bool]:
    each = func.json_each(column).table_valued("key", "value", name="each").c
    return select(1).where(each.key == name, each.value == value).exists()


def dead(
    connection: Connection,
    *,
    program_id: UUID | None = None,
    error_code: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
) -> Page[UUID]:
    """The ids of dead letters: executions that failed and were not discarded. The filters are those of `page`."""
    c, failed = executions.c, ExecutionStatus.FAILED
    conditions = _conditions(program_id, failed, since, until, error_code, False, tenant)
    columns = [c.id, c.inserted_at]
    return pages.read(
        connection, select(*columns).where(*conditions), executions, attrgetter("id"), cursor=cursor, limit=limit
    )


MOST_PASSED = 1_000
"""How many rows a page of `unended` looks through at most."""


def unended(
    connection: Connection,
    *,
    program_id: UUID | None = None,
    status: ExecutionStatus | None = None,
    lane: Lane | None = None,
    error_code: str | None = None,
    metadata: Mapping[str, str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    tenant: str = DEFAULT_TENANT,
    most: int = MOST_PASSED,
) -> Page[UUID]:
    """The ids of executions that have not ended, and that nobody has asked to cancel. The filters are those of `page`.

    It looks at them by the time when they were inserted, newest first, and not by their status, as that changes between
    two pages: each that was there at the first page is seen once. A page may be short or empty, and the next one not.

    Args:
        status: pending or running; None: both.
        most: how many rows a page looks through at most, those that have ended included.
    """
    c = executions.c
    looked_at = _conditions(program_id, None, since, until, None, None, tenant)
    conditions = [*looked_at, OPEN if status is None else _OPEN[status], ~c.cancel_requested]
    if lane is not None:
        conditions.append(c.lane == lane.number)
    if error_code is not None:
        conditions.append(c.error_code == error_code)
    if metadata:
        conditions.append(_said(connection.dialect.name, c.metadata, metadata))
    statement: Any = select(c.id, c.inserted_at).where(*conditions)
    searched = Searched(looked_at, most)
    return pages.read(
        connection, statement, executions, attrgetter("id"), cursor=cursor, limit=limit, searched=searched
    )


def _conditions(
    program_id: UUID | None,
    status: ExecutionStatus | None,
    since: datetime | None,
    until: datetime | None,
    error_code: str | None,
    discarded: bool | None,
    tenant: str,
) -> list[ColumnElement[bool]]:
    c = executions.c
    given = {c.program_id: program_id, c.status: status, c.error_code: error_code, c.discarded: discarded}
    conditions = [c.tenant == tenant, *(column == value for column, value in given.items() if value is not None)]
    if since is not None:
        conditions.append(c.inserted_at >= since)
    if until is not None:
        conditions.append(c.inserted_at < until)
    # Redundant, but written like the predicates of the partial indexes, so that these are used.
    if status is not None and status in _OPEN:
        conditions.append(_OPEN[status])
    elif error_code is not None or status in (ExecutionStatus.FAILED, ExecutionStatus.CANCELLED):
        conditions.append(UNSUCCESSFUL)
    return conditions
