"""How fast workers drain a full queue."""

from __future__ import annotations

from benchmarks.harness.runs import Stage, cpu_per_thousand
from benchmarks.harness.scenario import CPU_COLUMNS, Column, Figures, Options, Scenario
from benchmarks.harness.statistics import middle_rate
from benchmarks.systems import SYSTEMS, System

SPREAD, HOT = "100 programs", "one hot program"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Publish all, then start the workers."""
    jobs = options.jobs
    with stage.run(system) as run:
        published = run.publish(jobs, hot=variant == HOT)
        run.start_workers()
        usages = run.follow(jobs, jobs // 20, jobs * 19 // 20)
        run.verify()
        return {
            "rate": middle_rate(run.progress, jobs),
            "cpu producer": published["cpu"] / jobs * 1000,
            **cpu_per_thousand(*usages),
        }


SCENARIO = Scenario(
    "drain",
    "Drain",
    "All jobs are published, then two worker processes start. Jobs a second between 5 % and 95 % done: the first 5 % "
    "are the warm-up.",
    (Column("rate", "jobs/s"), *CPU_COLUMNS),
    tuple(SYSTEMS),
    lambda _: (SPREAD, HOT),
    measure,
)
