"""How fast commands become rows while every thread is busy."""

from __future__ import annotations

import time

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import commands, fleet, mock, per_thousand
from benchmarks.harness.process_tree import memory_mb
from benchmarks.harness.runs import OBSERVE_SECONDS, Stage
from benchmarks.harness.scenario import CPU_OF_WORK, Column, Figures, Options, Scenario
from benchmarks.systems import OWN, PROCESSES, System

THREADS = 64
AHEAD = 8
"""What a process may hold beyond its threads."""
BUSY_MS = 3_600_000
PATIENCE_SECONDS = 5.0
RATE = """
SELECT 0.9 * count(*) / extract(epoch FROM percentile_disc(0.95) WITHIN GROUP (ORDER BY inserted_at)
    - percentile_disc(0.05) WITHIN GROUP (ORDER BY inserted_at))
FROM executions WHERE status = 'pending'
"""
ROWS = "SELECT count(*) FROM executions"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Publish all, the long ones first; then start the workers, and watch the broker's queue."""
    count = options.accepted
    with fleet(stage, system) as made:
        with made.client() as client:
            quick, busy = mock(client), mock(client, BUSY_MS, "busy")
        ahead = PROCESSES * (THREADS + AHEAD)
        made.send(commands([busy], ahead))
        made.send(commands([quick], count))
        with made.workers(THREADS, PROCESSES) as workers:
            memory, before = memory_mb(workers.pids), made.cpu(workers)
            first = made.number(ROWS)
            last, since, most = made.ready(), time.monotonic(), memory
            while last and time.monotonic() < since + PATIENCE_SECONDS:
                time.sleep(OBSERVE_SECONDS)
                if (now := made.ready()) < last:
                    last, since = now, time.monotonic()
                    most = max(most, memory_mb(workers.pids))
            if last:
                raise Void(f"{last:,} of {count:,} stay on the broker, {made.number(ROWS):,.0f} are rows")
            made.wait(lambda: made.number(ROWS) >= count + ahead, "each is a row", workers)
            cpu = per_thousand(before, made.cpu(workers), made.number(ROWS) - first)
            return {"rate": made.number(RATE), "memory": most, "more": most - memory, **cpu}


SCENARIO = Scenario(
    "accept",
    "Accepted while nothing is free",
    f"All commands are published, then two worker processes start whose {THREADS} threads are each busy for an hour: "
    "rows a second between 5 % and 95 % of them by the time of their insert, and the memory of the workers (PSS) at "
    "most, and how much more that is than at their start.",
    (Column("rate", "rows/s"), Column("memory", "memory MB"), Column("more", "more MB", 1), *CPU_OF_WORK),
    (OWN,),
    lambda options: (f"{options.accepted:,} commands",),
    measure,
)
