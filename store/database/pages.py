"""Lists in pages, newest first. A page ends with a cursor, the start of the next page.

A cursor is a position and not a number of rows. So rows that are inserted or deleted meanwhile do not shift the pages,
and the hundredth page costs as much as the first.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Uuid, literal, select, tuple_
from sqlalchemy.sql.expression import FromClause, Select

from dspex.errors import InvalidValues, Problem
from store.column_types import UtcDateTime

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list. `next_cursor` requests the next page; None on the last one."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class Searched:
    """What a page looks through at most: the first `most` rows that fulfil `conditions`, which an index should have."""

    conditions: Sequence[ColumnElement[bool]]
    most: int


def read(
    connection: Connection,
    statement: Select[Any],
    table: FromClause,
    row_of: Callable[[Any], T],
    *,
    cursor: str | None,
    limit: int,
    complete: Callable[[Select[Any]], Select[Any]] = lambda page: page,
    searched: Searched | None = None,
) -> Page[T]:
    """Run a statement that selects from `table`, for the page that starts at the cursor.

    Its rows must contain the table's `id` and `inserted_at` under these names.

    Args:
        complete: gets the statement, limited to the page, and returns one that selects more about each row.
        searched: for a statement with a condition that no index has. A page that ends at this bound may have fewer rows
            than `limit`, or none; its cursor goes on behind the last row that was looked at.

    Raises:
        InvalidValues: the cursor is invalid, or the limit is not between 1 and `MAX_LIMIT`.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidValues([Problem("limit", f"must be between 1 and {MAX_LIMIT}")])
    c = table.c
    order, position = (c.inserted_at.desc(), c.id.desc()), tuple_(c.inserted_at, c.id)
    after: list[ColumnElement[bool]] = []
    if cursor is not None:
        after = [position < _position(*_decode(cursor))]
    bound = None
    if searched is not None:
        looked_at = select(c.inserted_at, c.id).where(*searched.conditions, *after).order_by(*order)
        bound = connection.execute(looked_at.offset(searched.most - 1).limit(1)).one_or_none()
        if bound is not None:
            after.append(position >= _position(bound.inserted_at, bound.id))
    ordered = statement.where(*after).order_by(*order).limit(limit + 1)
    rows = connection.execute(complete(ordered)).all()
    last = rows[limit - 1] if len(rows) > limit else bound
    return Page(tuple(map(row_of, rows[:limit])), None if last is None else cursor_after(last.inserted_at, last.id))


def cursor_after(inserted_at: datetime, id_: UUID) -> str:
    """The cursor for the rows after this one."""
    return base64.urlsafe_b64encode(f"{inserted_at.isoformat()} {id_.hex}".encode()).decode().rstrip("=")


def _position(inserted_at: datetime, id_: UUID) -> ColumnElement[Any]:
    return tuple_(literal(inserted_at, UtcDateTime), literal(id_, Uuid))


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, _, id_ = text.partition(" ")
        inserted_at = datetime.fromisoformat(moment)
        if inserted_at.tzinfo is None:
            raise ValueError
        return inserted_at.astimezone(UTC), UUID(id_)
    except (binascii.Error, OverflowError, ValueError):
        raise InvalidValues(
            [Problem("cursor", "is not one that a page has given: leave it out to begin anew")]
        ) from None
