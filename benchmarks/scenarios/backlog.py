"""A queue with a large backlog."""

from __future__ import annotations

from benchmarks.harness.process_tree import memory_mb
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.harness.statistics import percentile
from benchmarks.systems import OWN, System

EMPTY, FULL = "an empty queue", "a backlog"
PUBLISHES = 1_000
DONE = 5_000


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Publish one at a time behind the backlog, then start the workers and read their memory."""
    done = min(DONE, options.backlog // 4)
    with stage.run(system) as run:
        if variant == FULL:
            run.publish(options.backlog)
        milliseconds = run.producer.do("publish_each", jobs=PUBLISHES)["milliseconds"]
        if variant == EMPTY:
            run.publish(done)
        workers = run.start_workers()
        run.follow(done)
        memory = memory_mb(workers.pids)
    stage.servers.delete_queues(system.queues)
    return {"p99": percentile(milliseconds, 99), "p50": percentile(milliseconds, 50), "memory": memory}


SCENARIO = Scenario(
    "backlog",
    "A backlog",
    f"{PUBLISHES:,} messages are published one at a time, each confirmed, to an empty queue and behind a backlog; then "
    f"workers start, and their memory (PSS of all processes) is read when {DONE:,} are done.",
    (Column("p99", "publish p99 ms", 2), Column("p50", "publish p50 ms", 2), Column("memory", "memory MB")),
    (OWN,),
    lambda _: (EMPTY, FULL),
    measure,
    lower_is_better=True,
)
