"""Counters of each program's executions, in rows sharded by worker, so that processes do not wait for one hot row.

Once per batch, the transaction that ends executions changes the row of a shard, by compare-and-swap on its
`lock_version`. So the sum over the shards always equals the number of ended executions. One statement reads the
versions and swaps: on PostgreSQL, the one that ends the executions. It processes rows in the order of their ids, so
that two batches on one shard cannot deadlock.

The durations of the batch are added to a histogram (`store.histogram`), on PostgreSQL by the same statement. The lock
on the program's counter row of that shard also protects its histogram rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Integer,
    String,
    Table,
    Uuid,
    bindparam,
    case,
    cast,
    false,
    func,
    null,
    select,
    true,
    tuple_,
)

from dspex import ExecutionStatus
from dspex.errors import Conflict
from dspex.ids import DEFAULT_TENANT
from store.database.batch import encode, execute, records, upsert, writes_in_with
from store.database.identity import Identity
from store.tables import NOW, program_counters, program_durations

SHARDS = 64
MAX_TRIES = 5
DURATIONS = "durations"
"""The name of a second parameter, beside `records`: counts by bucket."""

_KEY: dict[str, Any] = {"program_id": Uuid(), "shard": Integer(), "tenant": String()}
_COUNTS: dict[str, Any] = {
    "completed": BigInteger(),
    "failed": BigInteger(),
    "cancelled": BigInteger(),
    "duration_ms": Float(),
    "input_tokens": BigInteger(),
    "output_tokens": BigInteger(),
    "cost": Float(),
    "tokens_known": BigInteger(),
    "cost_known": BigInteger(),
}
_RUNS: dict[str, Any] = {"bucket": Integer(), "runs": BigInteger()}


def _of_program(table: Table) -> ColumnElement[bool]:
    return (table.c.program_id == bindparam("program_id")) & (table.c.tenant == bindparam("tenant"))


_TOTALS = select(
    *(func.coalesce(func.sum(program_counters.c[name]), 0).label(name) for name in _COUNTS),
    func.max(program_counters.c.last_executed_at).label("last_executed_at"),
).where(_of_program(program_counters))

_TOTAL_DURATIONS = (
    select(program_durations.c.bucket, func.sum(program_durations.c.runs))
    .where(_of_program(program_durations))
    .group_by(program_durations.c.bucket)
    .having(func.sum(program_durations.c.runs) != 0)
)


@dataclass
class Counts:
    """Sums over the executions of a program.

    `duration_ms` is the sum for those that ran and were not cancelled; `durations` are counts of the same by bucket.
    Tokens and `cost` (in US dollars) are sums over the executions for which they are known: `tokens_known` and
    `cost_known` are their numbers. `executed`: whether any of them ran.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    duration_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    tokens_known: int = 0
    cost_known: int = 0
    last_executed_at: datetime | None = None
    durations: dict[int, int] = field(default_factory=dict, compare=False)
    executed: bool = field(default=True, compare=False)

    def use(self, input_tokens: int | None, output_tokens: int | None, cost: float | None, *, times: int = 1) -> None:
        """Add the usage of an execution, `times` times. None: not known."""
        self.input_tokens += times * (input_tokens or 0)
        self.output_tokens += times * (output_tokens or 0)
        self.cost += times * (cost or 0.0)
        self.tokens_known += times * (input_tokens is not None and output_tokens is not None)
        self.cost_known += times * (cost is not None)

    @property
    def executions(self) -> int:
        """How many executions ended."""
        return self.completed + self.failed + self.cancelled


def increment(connection: Connection, shard: int, counts: Mapping[Identity, Counts], *, executed: bool = True) -> None:
    """Add to the counters of each program, on one shard (0 to `SHARDS` - 1). Negative numbers subtract.

    Args:
        executed: whether to update `last_executed_at` of programs whose counts have `executed` set.

    Raises:
        Conflict: another transaction changed the row before each of `MAX_TRIES` tries.
    """
    waiting = dict(counts)
    dialect, insert = connection.dialect.name, upsert(connection)
    # A row with a newer version was not changed, but we have locked it since, so the second try succeeds.
    for _ in range(MAX_TRIES):
        if not waiting:
            break
        rows = [
            {"program_id": program.id, "shard": shard, "tenant": program.tenant}
            | {"executed": executed and numbers.executed}
            | _numbers(numbers)
            for program, numbers in waiting.items()
        ]
        parameters = encode(rows)
        if writes_in_with(dialect):
            parameters |= encode(_durations(shard, waiting), DURATIONS)
        for row in execute(connection, _swap(dialect, insert), parameters):
            del waiting[Identity(row.program_id, row.tenant)]
    if waiting:
        raise Conflict(f"the counters of {len(waiting)} programs changed under {MAX_TRIES} tries: try again")
    if not writes_in_with(dialect) and (durations := _durations(shard, counts)):
        execute(connection, _add_durations(dialect, insert), encode(durations, DURATIONS))


def _durations(shard: int, counts: Mapping[Identity, Counts]) -> list[dict[str, Any]]:
    return [
        {"program_id": program.id, "shard": shard, "tenant": program.tenant, "bucket": bucket, "runs": runs}
        for program, numbers in counts.items()
        for bucket, runs in numbers.durations.items()
    ]


def totals(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Counts:
    """The sums of a program over all shards, without the histogram."""
    row = connection.execute(_TOTALS, {"program_id": program_id, "tenant": tenant}).one()
    return Counts(
        completed=int(row.completed),
        failed=int(row.failed),
        cancelled=int(row.cancelled),
        duration_ms=float(row.duration_ms),
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost=float(row.cost),
        tokens_known=int(row.tokens_known),
        cost_known=int(row.cost_known),
        last_executed_at=row.last_executed_at,
    )


def durations(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> dict[int, int]:
    """The histogram of a program over all shards."""
    found = connection.execute(_TOTAL_DURATIONS, {"program_id": program_id, "tenant": tenant})
    return {bucket: int(runs) for bucket, runs in found}


def _numbers(counts: Counts) -> dict[str, float]:
    return {name: getattr(counts, name) for name in _COUNTS}


@lru_cache(maxsize=2)
def _swap(dialect: str, insert: Any) -> Any:
    swap = _swapping(insert, records(dialect, _KEY | _COUNTS | {"executed": Boolean()}))
    if not writes_in_with(dialect):
        return swap
    swapped = swap.cte("swapped")
    return select(swapped).add_cte(_add_durations(dialect, insert, swapped).cte("added"))


def _swapping(insert: Any, r: Any) -> Any:
    """Adds these counts where the version is still the one that it reads, and returns of which programs."""
    c = program_counters.c
    counted = program_counters.alias("counted")
    executed_at = case((r.c.executed, NOW), else_=null())
    # A subquery and no join: each is looked up by its key, however many rows there are.
    same = [counted.c[name] == r.c[name] for name in _KEY]
    version = select(counted.c.lock_version).where(*same).scalar_subquery()
    rows = (
        select(*(r.c[name] for name in (*_KEY, *_COUNTS)), executed_at, func.coalesce(version, 0) + 1)
        # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
        .where(r.c.program_id.is_not(None))
        .order_by(r.c.program_id, r.c.tenant)
    )
    statement = insert(program_counters).from_select([*_KEY, *_COUNTS, "last_executed_at", "lock_version"], rows)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(program_counters.primary_key),
        set_={name: c[name] + new[name] for name in _COUNTS}
        | {
            "last_executed_at": func.coalesce(new.last_executed_at, c.last_executed_at),
            "lock_version": new.lock_version,
        },
        where=c.lock_version == new.lock_version - 1,
    ).returning(c.program_id, c.tenant)


SHARD = "shard"
"""The parameter of `counting`: the shard."""
BUCKET = "bucket"


def counting(insert: Any, ended: Any) -> tuple[Any, Any]:
    """Two parts of a statement that ends executions: they add what it ended to the counters, and to the histogram.

    So the statement counts what it has ended, all of it and nothing else. It locks the counters after all executions,
    since it sums these up first. Parameter: `SHARD`.

    Args:
        ended: the ended rows, as a part of the same statement: columns of `executions`, and the `BUCKET` of those that
            count in the histogram.

    Returns:
        The part that counts: it has a row for each program whose counters no other transaction has changed meanwhile;
        those of the others are to be added by `increment`. And the part that adds to the histogram.
    """
    e, shard = ended.c, bindparam(SHARD, type_=Integer)
    cancelled = e.status == ExecutionStatus.CANCELLED
    sums: dict[str, Any] = {
        "completed": func.count().filter(e.status == ExecutionStatus.COMPLETED),
        "failed": func.count().filter(e.status == ExecutionStatus.FAILED),
        "cancelled": func.count().filter(cancelled),
        "duration_ms": func.coalesce(func.sum(e.duration_ms).filter(~cancelled), 0),
        "input_tokens": func.coalesce(func.sum(e.input_tokens), 0),
        "output_tokens": func.coalesce(func.sum(e.output_tokens), 0),
        "cost": func.coalesce(func.sum(e.cost), 0),
        "tokens_known": func.count().filter(e.input_tokens.is_not(None), e.output_tokens.is_not(None)),
        "cost_known": func.count(e.cost),
    }
    sums = {name: cast(sums[name], kind).label(name) for name, kind in _COUNTS.items()}
    executed = func.bool_or(e.duration_ms.is_not(None)).label("executed")
    counts = (
        select(e.program_id, shard.label(SHARD), e.tenant, *sums.values(), executed)
        .group_by(e.program_id, e.tenant)
        .cte("counts")
    )
    swapped = _swapping(insert, counts).cte("swapped")
    durations = (
        select(e.program_id, shard.label(SHARD), e.tenant, e[BUCKET], func.count().label("runs"))
        .where(e[BUCKET].is_not(None))
        .group_by(e.program_id, e.tenant, e[BUCKET])
        .subquery(DURATIONS)
    )
    return swapped, _adding_durations(insert, durations, swapped).cte("counted_durations")


@lru_cache(maxsize=2)
def _add_durations(dialect: str, insert: Any, swapped: Any = None) -> Any:
    """Parameter: `DURATIONS`. If `swapped` is given, only for these programs."""
    return _adding_durations(insert, records(dialect, _KEY | _RUNS, DURATIONS), swapped)


def _adding_durations(insert: Any, r: Any, swapped: Any) -> Any:
    c, columns = program_durations.c, _KEY | _RUNS
    rows = select(*(r.c[name] for name in columns)).order_by(r.c.program_id, r.c.tenant, r.c.bucket)
    if swapped is None:
        rows = rows.where(r.c.program_id.is_not(None))
    else:
        # An expression, so that it looks in a hash: a plan for one row would compare each with each.
        theirs = tuple_(r.c.program_id, r.c.tenant).in_(select(swapped.c.program_id, swapped.c.tenant))
        rows = rows.where(case((theirs, true()), else_=false()))
    statement = insert(program_durations).from_select([*columns], rows)
    return statement.on_conflict_do_update(
        index_elements=list(program_durations.primary_key), set_={"runs": c.runs + statement.excluded.runs}
    )
