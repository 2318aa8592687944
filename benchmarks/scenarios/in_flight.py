"""LM calls in flight: how many a process can wait for, beside DSPy alone in threads and in an event loop."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.harness.failures import Void
from benchmarks.harness.processes import environment
from benchmarks.harness.runs import DATABASE, Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, System

FEW = "64 in one process"
MANY = "1,000 in one process"
MOST = "4,000 in two processes"
VARIANTS = {FEW: (64, 1), MANY: (1000, 1), MOST: (2000, 2)}
BESIDE = ("native", "bare_threads", "bare_asyncio")


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """The worker, and, with one process, our adapter and bare DSPy without a worker."""
    calls, processes = VARIANTS[variant]
    stage.servers.empty(DATABASE, system.queues)
    settings = environment(stage.servers.environment(DATABASE), stage.tree)
    for command in ("migrate", "declare"):
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", command],
            cwd=stage.tree,
            env=settings,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise Void(done.stderr.decode(errors="replace").strip()[-800:])
    figures = _together("worker", calls, processes, options, settings, stage)
    if processes == 1:
        for subject in BESIDE:
            beside = _together(subject, calls, 1, options, settings, stage)
            figures |= {f"{key} {subject}": value for key, value in beside.items()}
    return figures


def _together(
    subject: str, calls: int, processes: int, options: Options, settings: dict[str, str], stage: Stage
) -> Figures:
    """The means of so many processes at the same time."""
    command = [sys.executable, "-m", "benchmarks.in_flight", "--of", subject, "--calls", str(calls)]
    command += ["--latency", str(options.in_flight_seconds)]
    started = [
        subprocess.Popen(
            command, cwd=stage.tree, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    found: list[Figures] = []
    try:
        for process in started:
            output, said = process.communicate(timeout=stage.seconds)
            if process.returncode:
                raise Void(said.strip()[-800:])
            found.append(json.loads(output))
    except subprocess.TimeoutExpired:
        raise Void(f"{subject} took longer than {stage.seconds:g} s") from None
    finally:
        for process in started:
            process.kill()
    return {key: sum(figures[key] for figures in found) / processes for key in found[0]}


SCENARIO = Scenario(
    "in_flight",
    "LM calls in flight",
    "Calls of an LM that takes 5 s, as many at once as said: calls a second as a share of the ideal (all at once / "
    "5 s), CPU of the process for each call, and the private memory of a process. DSPex is a whole worker over "
    "RabbitMQ and PostgreSQL with the native adapter; beside it the adapter alone, and `dspy.Predict` in threads and "
    "in an event loop. DSPy's HTTP client has 100 connections.",
    (
        Column("share", "of the ideal", 2),
        Column("cpu", "CPU ms a call", 2),
        Column("memory", "memory MB"),
        Column("share native", "adapter alone: of the ideal", 2),
        Column("cpu native", "CPU ms", 2),
        Column("share bare_threads", "DSPy, threads: of the ideal", 2),
        Column("cpu bare_threads", "CPU ms", 2),
        Column("share bare_asyncio", "DSPy, asyncio: of the ideal", 2),
        Column("cpu bare_asyncio", "CPU ms", 2),
    ),
    (OWN,),
    lambda _: tuple(VARIANTS),
    measure,
)
