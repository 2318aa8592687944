"""One producer and the workers together."""

from __future__ import annotations

import time

from benchmarks.harness.failures import Void
from benchmarks.harness.runs import Run, Stage, cpu_per_thousand
from benchmarks.harness.scenario import CPU_COLUMNS, Column, Figures, Options, Scenario
from benchmarks.harness.statistics import Progress
from benchmarks.systems import SYSTEMS, System

SPREAD = "100 programs"
UNFINISHED, STEP = 64, 32
NO_BACKLOG = f"100 programs, {UNFINISHED} unfinished at most"
LOOK_SECONDS = 0.004


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Warm the workers, then publish while they run."""
    jobs, warm = options.jobs, options.warm_up
    with stage.run(system) as run:
        run.start_workers()
        run.publish(warm)
        run.follow(warm)
        before = run.usage()
        if variant == NO_BACKLOG:
            published = _publish_with(run, jobs, warm)
            after = run.follow(warm + jobs, warm + jobs)[0]
        else:
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


def _publish_with(run: Run, jobs: int, done_before: int) -> dict[str, float]:
    """Publish in steps, as jobs are done: so what is published finds a free thread."""
    began, total = None, {"seconds": 0.0, "cpu": 0.0}
    while (left := done_before + jobs - run.published) > 0:
        done = run.done()
        run.progress.append(Progress(time.monotonic(), done))
        if run.published - done > UNFINISHED - STEP:
            time.sleep(LOOK_SECONDS)
            continue
        published = run.publish(min(STEP, left))
        began = began or published["began"]
        for key in total:
            total[key] += published[key]
    return total | {"began": began or 0.0}


SCENARIO = Scenario(
    "end_to_end",
    "End to end from one producer",
    "Two warm worker processes are idle; one producer publishes, each job confirmed by the broker or committed: as "
    f"fast as it can, or {STEP} whenever no more than {UNFINISHED - STEP} are unfinished, so that nothing waits. Jobs "
    "a second from its first publish to the last counted job.",
    (Column("rate", "jobs/s"), Column("publishing", "publishing took s", 1), *CPU_COLUMNS),
    tuple(SYSTEMS),
    lambda _: (SPREAD, NO_BACKLOG),
    measure,
)
