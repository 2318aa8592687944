"""One job at a time."""

from __future__ import annotations

from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.harness.statistics import percentile
from benchmarks.systems import SYSTEMS, System


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Ask, wait for the answer, ask again."""
    with stage.run(system, results=True) as run:
        run.start_workers()
        warm = max(20, options.asks // 5)
        run.published += warm + options.asks
        milliseconds = run.producer.do("ask", times=options.asks, warm_up=warm)["milliseconds"]
        run.follow(run.published)
        run.verify()
        return {"p50": percentile(milliseconds, 50), "p99": percentile(milliseconds, 99)}


SCENARIO = Scenario(
    "latency",
    "Latency, one in flight",
    "From before the publish, which is confirmed, until the caller has the outputs; each system's own way to get them: "
    "DSPex by a reply queue; Dramatiq (a blocking read), Celery (told by Redis; its database polled every 2 ms) and "
    "Taskiq (polled every ms) by their result backends; Procrastinate and PgQueuer have none, and the row is polled "
    "every 0.5 ms.",
    (Column("p50", "p50 ms", 1), Column("p99", "p99 ms", 1)),
    tuple(SYSTEMS),
    lambda _: ("one in flight",),
    measure,
    lower_is_better=True,
)
