"""Limits of an LM across the fleet, by the provider's own account."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import ExitStack

from benchmarks.harness.fleet import Fleet, commands, fleet, native
from benchmarks.harness.processes import Workers
from benchmarks.harness.provider import INPUT_TOKENS, OUTPUT_TOKENS, Provider, provider
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, System

PROCESSES, THREADS = 8, 8
IN_FLIGHT = 10
LATENCY_SECONDS = 0.2
TOKENS_A_MINUTE = 60_000
KILL_EVERY_SECONDS = 10.0
LEASE_SECONDS = "2"
LOOK_SECONDS = 0.1
STEADY = f"{IN_FLIGHT} in flight"
KILLED = f"{IN_FLIGHT} in flight, one of the processes killed every {KILL_EVERY_SECONDS:g} s"
TOKENS = f"{TOKENS_A_MINUTE:,} tokens a minute"
ENDED = "SELECT count(*) FROM executions WHERE status IN ('completed', 'failed')"
FAILED = "SELECT count(*) FROM executions WHERE status = 'failed'"
RUNNING = "SELECT count(*) FROM executions WHERE status = 'running'"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Set the limit, publish all, and let eight processes work."""
    limited = variant == TOKENS
    with provider(LATENCY_SECONDS) as lm:
        lms = json.dumps({"house": {"model": "openai/any", "api_base": lm.url}})
        with fleet(stage, system, DSPEX_LMS=lms, DSPEX_LEASE_SECONDS=LEASE_SECONDS) as made, ExitStack() as ending:
            with made.client() as client:
                program_id = native(client, "house")
            if limited:
                made.command("limit", "set", "--lm", "house", "--tokens-per-minute", str(TOKENS_A_MINUTE))
            else:
                made.command("limit", "set", "--lm", "house", "--in-flight", str(IN_FLIGHT))
            started = [ending.enter_context(made.workers(THREADS)) for _ in range(PROCESSES)]
            made.send(commands([program_id], options.limited))
            if limited:
                return _tokens(options, lm)
            return _in_flight(made, lm, started, ending, options.limited, killing=variant == KILLED)


def _in_flight(
    made: Fleet, lm: Provider, started: list[Workers], ending: ExitStack, count: int, *, killing: bool
) -> Figures:
    """Look at the slots until nearly all have ended; the last ones cannot fill them."""
    looks, began, next_kill = list[float](), time.monotonic(), time.monotonic() + KILL_EVERY_SECONDS
    while (ended := made.number(ENDED)) < count:
        if count * 0.05 < ended < count * 0.95:
            looks.append(made.number(RUNNING))
        if killing and time.monotonic() > next_kill:
            started.pop(0).kill()
            started.append(ending.enter_context(made.workers(THREADS)))
            next_kill = time.monotonic() + KILL_EVERY_SECONDS
        made.in_time(f"{ended:g} of {count} have ended")
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    return {
        "most": lm.most,
        "share": statistics.mean(looks) / IN_FLIGHT if looks else 0.0,
        "busy": lm.busy / seconds / IN_FLIGHT,
        "failed": made.number(FAILED),
    }


def _tokens(options: Options, lm: Provider) -> Figures:
    """The rate from the first minute on: what the bucket had at the beginning is gone by then."""
    time.sleep(options.limit_seconds / 3)
    begins = time.monotonic()
    time.sleep(options.limit_seconds * 2 / 3)
    ends = time.monotonic()
    used = lm.during(begins, ends) * (INPUT_TOKENS + OUTPUT_TOKENS)
    return {"most": lm.most, "share": used / (ends - begins) * 60 / TOKENS_A_MINUTE}


SCENARIO = Scenario(
    "limits",
    "Limits of an LM",
    f"{PROCESSES} processes of {THREADS} threads and an LM whose calls take {LATENCY_SECONDS:g} s. By the account of "
    "the LM: the most calls at once, and the share of its slots that were taken; by the database: the share of the "
    "slots that a running execution held. Of tokens: what was used, to the limit, after the first third of the time.",
    (
        Column("most", "at once, at most"),
        Column("share", "of the slots, or of the tokens", 3),
        Column("busy", "of the slots, by the LM", 3),
        Column("failed", "failed"),
    ),
    (OWN,),
    lambda _: (STEADY, KILLED, TOKENS),
    measure,
    lower_is_better=True,
)
