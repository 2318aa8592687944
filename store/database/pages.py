"""Lists in pages, newest first. A page ends with a cursor, which says where the next begins.

The cursor is a position and no number of rows: what is inserted or deleted meanwhile moves nothing, and the hundredth
page costs what the first does.
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
    """Some of a list. `next_cursor` gives the page after it; None: this is the last one."""

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
    """Run a statement that selects from `table`, for the page that begins at the cursor.

    Its rows have `id` and `inserted_at` of the table under these names.

    Args:
        complete: makes of the statement, once it finds no more than the page, one that finds more about each row.

    Raises:
        InvalidValues: the cursor is none, or the limit is not between 1 and `MAX_LIMIT`.
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
    """The cursor for what follows this row of a list."""
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
