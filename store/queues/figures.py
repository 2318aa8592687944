"""The backlog in figures: how much waits and runs, since when, how fast it moves; by lane, tenant or program.

What waits is read from the counts, and what runs from the small index of what runs. So it costs by the number of
programs in which something waits, runs or has moved within the last minutes, and never by how much waits.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    type_coerce,
    union_all,
)

from dspex.contract.options import Lane
from dspex.errors import InvalidValues, Problem
from store.column_types import UtcDateTime
from store.database.identity import Identity
from store.database.pages import Page
from store.database.tenancy import ALL
from store.queues.counts import SECONDS, clock, period_of
from store.statuses import IS_EXTERNAL, RUNNING
from store.tables import executions, gates, programs, queue_counts, queue_moves, queues

LEAST_SECONDS: Final = 5.0
"""A rate is over so many seconds at least, when a queue has only begun to move."""

MOST_HELD: Final = 5_000
"""So many gates of the rows of a page are told."""


class By(StrEnum):
    """What a row of figures is of."""

    LANE = "lane"
    TENANT = "tenant"
    PROGRAM = "program"


_COLUMNS: Final = {By.LANE: ("lane",), By.TENANT: ("tenant",), By.PROGRAM: ("tenant", "program_id")}


@dataclass(frozen=True)
class Scope:
    """What is looked at. `tenant`: `ALL` is every tenant; None: every program, or lane."""

    tenant: str
    program_id: UUID | None = None
    lane: Lane | None = None

    def of(self, c: Any) -> list[ColumnElement[bool]]:
        """The conditions on a table with these columns."""
        conditions: list[ColumnElement[bool]] = []
        if self.tenant != ALL:
            conditions.append(c.tenant == self.tenant)
        if self.program_id is not None:
            conditions.append(c.program_id == self.program_id)
        if self.lane is not None:
            conditions.append(c.lane == self.lane.number)
        return conditions


@dataclass(frozen=True)
class Figures:
    """Of a lane, a tenant, a program, or of everything.

    Attributes:
        waiting: executions that are pending: for a place, for their time, or held.
        running: executions that workers run.
        oldest_at: from when on the oldest that waits might have run; in the future: nothing may run before.
        came_per_minute, went_per_minute: executions that began and ceased to wait, on average of the last minute or
            two; those that run at once do neither.
    """

    waiting: int = 0
    running: int = 0
    oldest_at: datetime | None = None
    came_per_minute: float = 0.0
    went_per_minute: float = 0.0
    tenant: str | None = None
    program_id: UUID | None = None
    lane: Lane | None = None

    @property
    def expected_seconds(self) -> float | None:
        """How long one that comes now waits, if it goes on like this; None: nothing goes."""
        if self.waiting == 0:
            return 0.0
        return self.waiting / self.went_per_minute * 60 if self.went_per_minute else None


def lanes(connection: Connection, scope: Scope) -> list[Figures]:
    """The figures of each lane, the first lane first."""
    now = clock(connection)
    found = {row.lane: row for row in connection.execute(figures(By.LANE, scope.of, period_of(now)))}
    wanted = [lane for lane in Lane if scope.lane in (None, lane)]
    return [
        figures_of(found[lane.number], now, lane=lane) if lane.number in found else Figures(lane=lane)
        for lane in wanted
    ]


def total(rows: Sequence[Figures]) -> Figures:
    """The figures of all of these together."""
    since = [row.oldest_at for row in rows if row.oldest_at is not None]
    return Figures(
        sum(row.waiting for row in rows),
        sum(row.running for row in rows),
        min(since, default=None),
        sum(row.came_per_minute for row in rows),
        sum(row.went_per_minute for row in rows),
    )


def page(connection: Connection, by: By, scope: Scope, *, cursor: str | None, limit: int) -> Page[Figures]:
    """The figures of tenants or programs, those with most that waits first.

    Raises:
        InvalidValues: the cursor is invalid.
    """
    now = clock(connection)
    all_of_them = figures(by, scope.of, period_of(now)).subquery("figures")
    c = all_of_them.c
    key = [c[name] for name in _COLUMNS[by]]
    wanted = select(all_of_them)
    if cursor is not None:
        waiting, after = _decode(by, cursor)
        behind = tuple_(*key) > tuple_(*(literal(v, k.type) for v, k in zip(after, key, strict=True)))
        wanted = wanted.where(or_(c.waiting < waiting, and_(c.waiting == waiting, behind)))
    rows = connection.execute(wanted.order_by(c.waiting.desc(), *key).limit(limit + 1)).all()
    named = [{name: getattr(row, name) for name in _COLUMNS[by]} for row in rows]
    found = [figures_of(row, now, **names) for row, names in zip(rows, named, strict=True)]
    return Page(tuple(found[:limit]), _encode(by, found[limit - 1]) if len(found) > limit else None)


def names(connection: Connection, of: Iterable[Identity]) -> dict[Identity, str]:
    """The names of programs; those that are gone have none."""
    c = programs.c
    wanted = list(of)
    found = connection.execute(select(c.id, c.tenant, c.name).where(c.id.in_([program.id for program in wanted])))
    known = {Identity(row.id, row.tenant): row.name for row in found}
    return {program: known[program] for program in wanted if program in known}


def holders(connection: Connection, by: By, rows: Sequence[Figures], scope: Scope) -> list[list[str]]:
    """For each of these rows, the keys of the gates that hold something of it now; `MOST_HELD` at most."""
    c, names = queues.c, _COLUMNS[by]
    key = [c[name] for name in names]
    keys = [tuple(_value(getattr(row, name)) for name in names) for row in rows]
    found = dict[tuple[Any, ...], list[str]]()
    if keys:
        held = select(*key, c.holder).where(c.holder != "", *scope.of(c), tuple_(*key).in_(keys)).distinct()
        for *its, holder in connection.execute(held.order_by(*key, c.holder).limit(MOST_HELD)):
            found.setdefault(tuple(its), []).append(holder)
    return [found.get(its, []) for its in keys]


def _value(name: Any) -> Any:
    return name.number if isinstance(name, Lane) else name


def paused(connection: Connection, keys: Collection[str]) -> set[str]:
    """Those of these gates that are paused."""
    c = gates.c
    return set(connection.execute(select(c.key).where(c.key.in_(keys), c.paused)).scalars())


def figures(by: By, of: Callable[[Any], Collection[ColumnElement[bool]]], period: Any) -> Select[Any]:
    """The statement: counts, what has moved since, and what runs, by the key of what is asked for.

    Args:
        of: the conditions on a table with the columns of a `Scope`.
        period: the number of the period that is now.
    """
    key = _COLUMNS[by]
    none = literal(0, BigInteger)
    never = type_coerce(null(), UtcDateTime)
    c, m, e = queue_counts.c, queue_moves.c, executions.c

    def recent(name: str) -> ColumnElement[int]:
        current, before = c[name], c[f"{name}_before"]
        return case((c.period >= period, current + before), (c.period == period - 1, current), else_=0)

    counted = select(
        *(c[name] for name in key),
        c.waiting.label("waiting"),
        none.label("running"),
        case((c.waiting > 0, c.oldest_at)).label("oldest_at"),
        recent("came").label("came"),
        recent("went").label("went"),
        case((c.period >= period - 1, c.moving_since)).label("moving_since"),
    ).where(*of(c))
    moving = select(*(m[name] for name in key), m.came - m.went, none, never, m.came, m.went, never)
    running = select(*(e[name] for name in key), none, literal(1, BigInteger), never, none, none, never)
    parts = union_all(counted, moving.where(*of(m)), running.where(RUNNING, ~IS_EXTERNAL, *of(e))).subquery("parts")
    p = parts.c
    sums = {name: func.sum(p[name]).label(name) for name in ("waiting", "running", "came", "went")}
    columns: list[ColumnElement[Any]] = [*(p[name] for name in key), *sums.values()]
    columns += [func.min(p[name], type_=UtcDateTime()).label(name) for name in ("oldest_at", "moving_since")]
    anything = or_(*(func.sum(p[name]) != 0 for name in sums))
    return select(*columns).group_by(*(p[name] for name in key)).having(anything)


def figures_of(row: Any, now: datetime, **names: Any) -> Figures:
    """Figures from a row of the statement, or from NULL."""
    begun = now - timedelta(seconds=now.timestamp() % SECONDS + SECONDS)
    since = max(begun, row.moving_since) if row.moving_since is not None else now
    minutes = max((now - since).total_seconds(), LEAST_SECONDS) / 60
    waiting, running, came, went = (int(getattr(row, name) or 0) for name in ("waiting", "running", "came", "went"))
    return Figures(max(waiting, 0), running, row.oldest_at, came / minutes, went / minutes, **names)


def _encode(by: By, last: Figures) -> str:
    key = " ".join(str(getattr(last, name)) for name in _COLUMNS[by])
    return base64.urlsafe_b64encode(f"{last.waiting} {key}".encode()).decode().rstrip("=")


def _decode(by: By, cursor: str) -> tuple[int, list[Any]]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        waiting, *texts = text.split(" ")
        key = [UUID(value) if name == "program_id" else value for name, value in zip(_COLUMNS[by], texts, strict=True)]
        if not 0 <= int(waiting) < 1 << 63:
            raise ValueError(waiting)
        return int(waiting), key
    except (binascii.Error, ValueError):
        text = "is not one that a page has given: leave it out to begin anew"
        raise InvalidValues([Problem("cursor", text)]) from None
