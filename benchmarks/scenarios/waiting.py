"""Jobs that wait 200 ms, as for an LM: the rate and the memory."""

from __future__ import annotations

from benchmarks.harness.process_tree import memory_mb
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.harness.statistics import rate_of_time
from benchmarks.systems import PROCESSES, SYSTEMS, System

LATENCY_MS = 200
CONCURRENCIES = (8, 64, 256)
VARIANTS = {f"{concurrency} at once in a process": concurrency for concurrency in CONCURRENCIES}


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Publish more jobs than can be done, and observe the middle of the run."""
    concurrency = VARIANTS[variant]
    ideal = PROCESSES * concurrency * 1000 / LATENCY_MS
    warm = round(ideal)
    with stage.run(system, latency_ms=LATENCY_MS, concurrency=concurrency) as run:
        run.publish(round(warm + ideal * (options.waiting_seconds + 3)))
        workers = run.start_workers(concurrency)
        run.follow(min(warm, 1000))
        seen = run.watch(options.waiting_seconds)
        memory = memory_mb(workers.pids)
    rate = rate_of_time(seen)
    return {"rate": rate, "share": rate / ideal, "memory": memory}


SCENARIO = Scenario(
    "waiting",
    "I/O-bound: 200 ms of waiting in each job",
    "Two worker processes with so many jobs at once in each; jobs a second while the queue is full, its share of what "
    "the waiting allows (all jobs at once / 200 ms), and the memory of all worker processes (PSS). Above 64 at "
    "once, the peers' processes share 64 connections to PostgreSQL; ours has one for its writer.",
    (Column("rate", "jobs/s"), Column("share", "of the ideal", 2), Column("memory", "memory MB")),
    tuple(name for name in SYSTEMS if name not in ("dramatiq_orm", "celery_database")),
    lambda _: tuple(VARIANTS),
    measure,
)
