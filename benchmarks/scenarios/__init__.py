"""The scenarios, one module each, in the order of the report."""

from __future__ import annotations

from benchmarks.scenarios import (
    accept,
    backlog,
    cancels,
    choose,
    drain,
    embedded,
    end_to_end,
    full_table,
    in_flight,
    joins,
    lanes,
    latency,
    limits,
    publish,
    refusals,
    shares,
    waiting,
    wakes,
)

_ALONE = (drain, end_to_end, latency, waiting, in_flight, publish, backlog, full_table, embedded)
_QUEUE = (accept, choose, lanes, shares, joins, wakes, limits, refusals, cancels)

SCENARIOS = {module.SCENARIO.name: module.SCENARIO for module in (*_ALONE, *_QUEUE)}
