"""DSPex in one process, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness.failures import Void
from benchmarks.harness.processes import environment
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, System


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """A process of its own, which publishes to itself."""
    with tempfile.TemporaryDirectory(dir=stage.directory) as directory:
        command = [sys.executable, "-m", "benchmarks.embedded", "--rows", str(options.embedded)]
        settings = {"DSPEX_DATABASE_URL": f"sqlite:///{Path(directory) / 'bench.db'}"}
        done = subprocess.run(
            command,
            cwd=stage.tree,
            env=environment(settings, stage.tree),
            capture_output=True,
            text=True,
            timeout=stage.seconds,
            check=False,
        )
    if done.returncode:
        raise Void(done.stderr.strip()[-800:])
    figures: Figures = json.loads(done.stdout)
    return figures


SCENARIO = Scenario(
    "embedded",
    "Embedded, on SQLite",
    "One process with the in-process broker and an SQLite file: from the first publish to the last counted row.",
    (
        Column("rate", "executions/s"),
        Column("p50", "one alone, p50 ms", 1),
        Column("p99", "p99 ms", 1),
        Column("cpu", "CPU s per 1,000", 2),
    ),
    (OWN,),
    lambda _: ("SQLite",),
    measure,
)
