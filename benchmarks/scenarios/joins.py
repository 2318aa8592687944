"""A worker that comes to a backlog of long jobs: how much it gets, and what the first one keeps from it."""

from __future__ import annotations

import time

from benchmarks.harness.fleet import WORKER_PID, commands, fleet, mock
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, System

THREADS = 16
WAITS = 24
"""More than a process may run at once: as many as another needs, and some."""
SECONDS = 2.0
LATENCY_MS = 30_000
RUNNING = "SELECT count(*) FROM executions WHERE status = 'running'"
RUNNING_HERE = f"SELECT count(*) FROM executions WHERE status = 'running' AND {WORKER_PID}"
ROWS_THAT_WAIT = "SELECT count(*) FROM executions WHERE status = 'pending'"
FULL = f"""
SELECT extract(epoch FROM max(started_at) - min(started_at)) FROM executions WHERE status = 'running' AND {WORKER_PID}
"""


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Fill one worker, then start another, and look two seconds after it has begun to take commands."""
    with fleet(stage, system) as made:
        with made.client() as client:
            program_id = mock(client, LATENCY_MS)
        with made.workers(THREADS):
            made.send(commands([program_id], THREADS + WAITS))
            made.wait(lambda: made.number(RUNNING) >= THREADS, "the first worker is full")
            time.sleep(SECONDS)
            with made.workers(THREADS) as joined:
                time.sleep(SECONDS)
                pid = joined.pids[0]
                here = made.number(RUNNING_HERE, pid=pid)
                taken = made.number(FULL, pid=pid)
                waits = made.number(ROWS_THAT_WAIT) + made.ready()
    kept = WAITS - here - waits
    return {"share": here / THREADS, "kept": kept, "seconds": taken}


SCENARIO = Scenario(
    "joins",
    "A worker joins",
    f"A worker of {THREADS} threads is full of long jobs, and {WAITS} more wait; another one starts. {SECONDS:g} s "
    "after it takes commands: the share of its threads that run a job, how many jobs the first one keeps that it does "
    "not run and nobody else can, and how long it took from its first start to its last.",
    (Column("share", "of its threads", 2), Column("kept", "kept back"), Column("seconds", "seconds", 3)),
    (OWN,),
    lambda _: ("long jobs",),
    measure,
)
