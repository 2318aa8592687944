"""One producer and the workers together."""

from __future__ import annotations

from benchmarks.harness.failures import Void
from benchmarks.harness.runs import Stage, cpu_per_thousand
from benchmarks.harness.scenario import CPU_COLUMNS, Column, Figures, Options, Scenario
from benchmarks.systems import SYSTEMS, System

SPREAD = "100 programs"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Warm the workers, then publish while they run."""
    jobs, warm = options.jobs, options.warm_up
    with stage.run(system) as run:
        run.start_workers()
        run.publish(warm)
        run.follow(warm)
        before = run.usage()
        run.published += jobs
        run.producer.begin("publish", jobs=jobs)
        after = run.follow(warm + jobs, warm + jobs)[0]
        published = run.producer.end()
        run.verify()
        seconds = run.progress[-1].at - published["began"]
        if seconds <= 0:
            raise Void("it was done before it began")
        return {
            "rate": jobs / seconds,
            "publishing": published["seconds"],
            "cpu producer": published["cpu"] / jobs * 1000,
            **cpu_per_thousand(before, after),
        }


SCENARIO = Scenario(
    "end_to_end",
    "End to end from one producer",
    "Two warm worker processes are idle; one producer publishes, each job confirmed by the broker or committed. Jobs a "
    "second from its first publish to the last counted job.",
    (Column("rate", "jobs/s"), Column("publishing", "publishing took s", 1), *CPU_COLUMNS),
    tuple(SYSTEMS),
    lambda _: (SPREAD,),
    measure,
)
