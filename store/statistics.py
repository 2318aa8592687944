"""Statistics of a program's executions: of all time from the counters, of a window of time from the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Float, case, cast, func, literal_column, select

from dspex import ExecutionStatus
from dspex.errors import NotFound
from dspex.ids import DEFAULT_TENANT
from store import counters
from store.histogram import quantile
from store.statuses import status_in
from store.tables import executions, program_counters, programs

QUANTILES = (0.5, 0.95)
_ENDED = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)
_RAN = status_in(ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)


@dataclass(frozen=True)
class Statistics:
    """Statistics of the ended executions of a program.

    The success rate (0 to 1) and the durations (in milliseconds, of those that ran) include only completed and failed
    executions; None if there were none. Tokens and cost (US dollars) are sums over the executions for which they are
    known: `tokens_known` and `cost_known` of `total`.
    """

    program_id: UUID
    total: int
    successful: int
    failed: int
    cancelled: int
    success_rate: float | None
    average_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    input_tokens: int
    output_tokens: int
    cost: float
    last_executed_at: datetime | None
    """When a worker last ended an execution; only in statistics of all time."""
    since: datetime | None = None
    until: datetime | None = None
    tokens_known: int = 0
    cost_known: int = 0
    name: str | None = field(default=None, compare=False)
    """The name of the program. None if it was destroyed; its counters and executions stay."""


def all_time(connection: Connection, program_id: UUID, *, tenant: str = DEFAULT_TENANT) -> Statistics:
    """Statistics of all time, from the counters. Percentiles are accurate to `histogram.RELATIVE_ERROR`.

    Raises:
        NotFound: there is no such program, and no execution of one that was destroyed.
    """
    name = _name(connection, program_id, tenant)
    totals = counters.totals(connection, program_id, tenant=tenant)
    durations = counters.durations(connection, program_id, tenant=tenant)
    ran, timed = totals.completed + totals.failed, sum(durations.values())
    p50, p95 = (quantile(durations, q) for q in QUANTILES)
    return Statistics(
        program_id=program_id,
        name=name,
        total=totals.executions,
        successful=totals.completed,
        failed=totals.failed,
        cancelled=totals.cancelled,
        success_rate=totals.completed / ran if ran else None,
        average_duration_ms=totals.duration_ms / timed if timed else None,
        p50_duration_ms=p50,
        p95_duration_ms=p95,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cost=totals.cost,
        tokens_known=totals.tokens_known,
        cost_known=totals.cost_known,
        last_executed_at=totals.last_executed_at,
    )


def window(
    connection: Connection, program_id: UUID, since: datetime, until: datetime, *, tenant: str = DEFAULT_TENANT
) -> Statistics:
    """Statistics of executions inserted at or after `since` and before `until`, from their rows. Percentiles are exact.

    Raises:
        NotFound: there is no such program, and no execution of one that was destroyed.
    """
    name = _name(connection, program_id, tenant)
    c = executions.c
    of_program = (c.tenant == tenant, c.program_id == program_id)
    within = (*of_program, c.inserted_at >= since, c.inserted_at < until, status_in(*_ENDED))
    duration = case((_RAN, c.duration_ms))
    statement = select(
        *(func.count(case((status_in(status), 1))).label(status.value) for status in _ENDED),
        func.avg(duration).label("average"),
        func.coalesce(func.sum(c.input_tokens), 0).label("input_tokens"),
        func.coalesce(func.sum(c.output_tokens), 0).label("output_tokens"),
        func.coalesce(func.sum(c.cost), 0).label("cost"),
        func.count(c.input_tokens + c.output_tokens).label("tokens_known"),
        func.count(c.cost).label("cost_known"),
    ).where(*within)
    if connection.dialect.name == "postgresql":
        shares = cast(literal_column(f"ARRAY[{', '.join(map(str, QUANTILES))}]"), ARRAY(Float))
        statement = statement.add_columns(func.percentile_cont(shares).within_group(duration).label("quantiles"))
    row = connection.execute(statement).one()
    if connection.dialect.name == "postgresql":
        p50, p95 = row.quantiles or (None, None)
    else:
        ordered = select(c.duration_ms).where(*within, _RAN, c.duration_ms.is_not(None)).order_by(c.duration_ms)
        values = connection.execute(ordered).scalars().all()
        p50, p95 = (_interpolated(values, q) for q in QUANTILES)
    ran = row.completed + row.failed
    return Statistics(
        program_id=program_id,
        name=name,
        total=ran + row.cancelled,
        successful=row.completed,
        failed=row.failed,
        cancelled=row.cancelled,
        success_rate=row.completed / ran if ran else None,
        average_duration_ms=row.average,
        p50_duration_ms=p50,
        p95_duration_ms=p95,
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost=float(row.cost),
        tokens_known=row.tokens_known,
        cost_known=row.cost_known,
        last_executed_at=None,
        since=since,
        until=until,
    )


def _interpolated(ordered: Sequence[float], q: float) -> float | None:
    """A quantile by the rule of PostgreSQL's `percentile_cont`."""
    if not ordered:
        return None
    rank = q * (len(ordered) - 1)
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return below + (above - below) * (rank - math.floor(rank))


def _name(connection: Connection, program_id: UUID, tenant: str) -> str | None:
    c, k = programs.c, program_counters.c
    name = connection.execute(select(c.name).where(c.id == program_id, c.tenant == tenant)).scalar_one_or_none()
    if name is None:
        counted = select(k.program_id).where(k.program_id == program_id, k.tenant == tenant).limit(1)
        if connection.execute(counted).one_or_none() is None:
            raise NotFound(f"program_id: there is no program {program_id}")
    return name
