"""How fast one producer publishes jobs."""

from __future__ import annotations

from benchmarks.harness.runs import Stage, cpu_per_thousand
from benchmarks.harness.scenario import CPU_COLUMNS, Column, Figures, Options, Scenario
from benchmarks.systems import SYSTEMS, System

SIZE = 700
"""Bytes of a job's question: about 1 kB with its ids and the envelope."""


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Publish, with no workers."""
    with stage.run(system) as run:
        run.publish(options.warm_up, size=SIZE)
        before = run.usage()
        published = run.publish(options.published, size=SIZE)
        after = run.usage()
    done = options.published
    cpu = cpu_per_thousand(before, type(after)(before.done + done, after.seconds))
    return {"rate": done / published["seconds"], **cpu, "cpu producer": published["cpu"] / done * 1000}


SCENARIO = Scenario(
    "publish",
    "Publish rate",
    "One producer, no workers, messages of 1 kB; until every one is confirmed by the broker or committed.",
    (Column("rate", "messages/s"), *(column for column in CPU_COLUMNS if column.key != "cpu worker")),
    tuple(SYSTEMS),
    lambda _: ("1 kB",),
    measure,
)
