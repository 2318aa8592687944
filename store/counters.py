"""What each program has run, counted in rows sharded by worker: no two processes wait for one hot row.

A shard's row is changed by compare-and-swap on its `lock_version`, once a batch, in the transaction that finishes
the executions: the sum over the shards equals the count of terminal executions, always. One statement reads the
versions and swaps; rows are taken in the order of their ids, so that two batches on one shard cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Float, Integer, Uuid, func, select

from dspex.errors import Conflict
from store.batch import encode, records, upsert
from store.tables import NOW, program_counters

SHARDS = 64
MAX_TRIES = 5

_KEY: dict[str, Any] = {"program_id": Uuid(), "shard": Integer()}
_COUNTS: dict[str, Any] = {
    "completed": BigInteger(),
    "failed": BigInteger(),
    "duration_ms": Float(),
    "input_tokens": BigInteger(),
    "output_tokens": BigInteger(),
    "cost": Float(),
}


@dataclass
class Counts:
    """Sums over executions: durations in milliseconds, cost in US dollars."""

    completed: int = 0
    failed: int = 0
    duration_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    last_executed_at: datetime | None = None

    @property
    def executions(self) -> int:
        """How many ended."""
        return self.completed + self.failed


def increment(connection: Connection, shard: int, counts: Mapping[UUID, Counts]) -> None:
    """Add to the counters of each program, on one shard (0 to `SHARDS` - 1).

    Raises:
        Conflict: a shard's row kept changing under `MAX_TRIES` tries.
    """
    waiting = dict(counts)
    statement = _swap(connection.dialect.name, upsert(connection))
    # A row whose version had moved on was not changed, but is locked by us from then on: the second try has it.
    for _ in range(MAX_TRIES):
        if not waiting:
            return
        rows = ({"program_id": p, "shard": shard} | _numbers(numbers) for p, numbers in waiting.items())
        for program_id in connection.execute(statement, encode(rows)).scalars():
            del waiting[program_id]
    if waiting:
        raise Conflict(f"the counters of {len(waiting)} programs changed under {MAX_TRIES} tries: try again")


def totals(connection: Connection, program_id: UUID) -> Counts:
    """The sums of a program over all shards."""
    c = program_counters.c
    sums = [func.coalesce(func.sum(c[name]), 0).label(name) for name in _COUNTS]
    row = connection.execute(
        select(*sums, func.max(c.last_executed_at).label("last_executed_at")).where(c.program_id == program_id)
    ).one()
    return Counts(
        completed=int(row.completed),
        failed=int(row.failed),
        duration_ms=float(row.duration_ms),
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost=float(row.cost),
        last_executed_at=row.last_executed_at,
    )


def _numbers(counts: Counts) -> dict[str, float]:
    return {name: getattr(counts, name) for name in _COUNTS}


@lru_cache(maxsize=2)
def _swap(dialect: str, insert: Any) -> Any:
    c, r = program_counters.c, records(dialect, _KEY | _COUNTS)
    known = program_counters.alias("known")
    rows = (
        select(*(r.c[name] for name in (*_KEY, *_COUNTS)), NOW, func.coalesce(known.c.lock_version, 0) + 1)
        .join_from(r, known, (known.c.program_id == r.c.program_id) & (known.c.shard == r.c.shard), isouter=True)
        # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
        .where(r.c.program_id.is_not(None))
        .order_by(r.c.program_id)
    )
    statement = insert(program_counters).from_select([*_KEY, *_COUNTS, "last_executed_at", "lock_version"], rows)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[c.program_id, c.shard],
        set_={name: c[name] + new[name] for name in _COUNTS}
        | {"last_executed_at": new.last_executed_at, "lock_version": new.lock_version},
        where=c.lock_version == new.lock_version - 1,
    ).returning(c.program_id)
