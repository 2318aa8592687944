"""An LM that refuses every call for some minutes, while much waits for it."""

from __future__ import annotations

import json
import time

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import Fleet, commands, fleet, lines, native
from benchmarks.harness.provider import Provider, provider
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, PROCESSES, System

THREADS = 16
LATENCY_SECONDS = 0.2
RATE_SECONDS = 3.0
PATIENCE_SECONDS = 120.0
NAMED = "429 that names 20 s"
UNNAMED = "429 that names no time"
RETRY_AFTER = {NAMED: 20, UNNAMED: None}
MOST_ATTEMPTS = "SELECT max(attempt) FROM executions"
FAILED = "SELECT count(*) FROM executions WHERE status = 'failed'"
WAITING = "SELECT count(*) FROM executions WHERE status = 'pending'"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Let it run, refuse for a while, and see how long the full rate takes to be back."""
    with provider(LATENCY_SECONDS) as lm:
        lm.retry_after = RETRY_AFTER[variant]
        lms = json.dumps({"house": {"model": "openai/any", "api_base": lm.url}})
        with fleet(stage, system, DSPEX_LMS=lms, DSPEX_LOG_LEVEL="INFO") as made:
            with made.client() as client:
                program_id = native(client, "house")
            full = PROCESSES * THREADS / LATENCY_SECONDS
            with made.workers(THREADS, PROCESSES) as workers:
                made.send(commands([program_id], options.refused + round(full * RATE_SECONDS * 4)))
                made.wait(lambda: len(lm.calls) > full, "it runs", workers)
                time.sleep(RATE_SECONDS)
                usual = lm.during(time.monotonic() - RATE_SECONDS, time.monotonic()) / RATE_SECONDS
                logged = lines(workers.log)
                lm.refusing = True
                time.sleep(options.refused_seconds)
                lm.refusing = False
                figures = _refused(made, lm, options.refused_seconds, lines(workers.log) - logged)
                return figures | {"usual": usual, "back": _until(lm, usual * 0.9)}


def _refused(made: Fleet, lm: Provider, seconds: float, logged: int) -> Figures:
    return {
        "calls": len(lm.refused) / seconds,
        "refused": float(len(lm.refused)),
        "attempts": made.number(MOST_ATTEMPTS),
        "failed": made.number(FAILED),
        "logged": float(logged),
    }


def _until(lm: Provider, rate: float) -> float:
    """How many seconds it takes until as many calls come in a second."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_SECONDS:
        time.sleep(0.1)
        now = time.monotonic()
        if now > began + 1 and lm.during(now - 1, now) >= rate:
            return max(0.0, now - 1 - began)
    raise Void(f"the rate was not back {PATIENCE_SECONDS:g} s after the LM was")


SCENARIO = Scenario(
    "refusals",
    "An LM refuses every call",
    f"Two worker processes of {THREADS} threads and an LM whose calls take {LATENCY_SECONDS:g} s. It answers 429 for a "
    "while; meanwhile: calls a second, all of them, the most attempts of an execution, executions that failed, lines "
    "of the log. Then: seconds until the rate of before is back, to 0.9.",
    (
        Column("calls", "refused calls a second", 2),
        Column("refused", "refused"),
        Column("attempts", "attempts at most"),
        Column("failed", "failed"),
        Column("logged", "log lines"),
        Column("back", "s until back", 1),
        Column("usual", "calls/s of before"),
    ),
    (OWN,),
    lambda _: (NAMED, UNNAMED),
    measure,
    lower_is_better=True,
)
