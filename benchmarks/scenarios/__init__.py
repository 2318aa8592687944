"""The scenarios, one module each, in the order of the report."""

from __future__ import annotations

from benchmarks.scenarios import (
    backlog,
    drain,
    embedded,
    end_to_end,
    full_table,
    in_flight,
    latency,
    publish,
    waiting,
)

SCENARIOS = {
    module.SCENARIO.name: module.SCENARIO
    for module in (drain, end_to_end, latency, waiting, in_flight, publish, backlog, full_table, embedded)
}
