"""Lists in pages, newest first. A page ends with a cursor, the start of the next page.

A cursor is a position and not a number of rows. So rows that are inserted or deleted meanwhile do not shift the pages,
and the hundredth page costs as much as the first.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Uuid, literal, tuple_
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


def read(
    connection: Connection,
    statement: Select[Any],
    table: FromClause,
    row_of: Callable[[Any], T],
    *,
    cursor: str | None,
    limit: int,
    complete: Callable[[Select[Any]], Select[Any]] = lambda page: page,
) -> Page[T]:
    """Run a statement that selects from `table`, for the page that starts at the cursor.

    Its rows must contain the table's `id` and `inserted_at` under these names.

    Args:
        complete: gets the statement, limited to the page, and returns one that selects more about each row.

    Raises:
        InvalidValues: the cursor is invalid, or the limit is not between 1 and `MAX_LIMIT`.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidValues([Problem("limit", f"must be between 1 and {MAX_LIMIT}")])
    c = table.c
    if cursor is not None:
        inserted_at, id_ = _decode(cursor)
        position = tuple_(literal(inserted_at, UtcDateTime), literal(id_, Uuid))
        statement = statement.where(tuple_(c.inserted_at, c.id) < position)
    ordered = statement.order_by(c.inserted_at.desc(), c.id.desc()).limit(limit + 1)
    rows = connection.execute(complete(ordered)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(tuple(map(row_of, rows[:limit])), None if last is None else cursor_after(last.inserted_at, last.id))


def cursor_after(inserted_at: datetime, id_: UUID) -> str:
    """The cursor for the rows after this one."""
    return base64.urlsafe_b64encode(f"{inserted_at.isoformat()} {id_.hex}".encode()).decode().rstrip("=")


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
