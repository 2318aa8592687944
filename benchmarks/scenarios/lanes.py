"""How long an urgent execution waits for its start behind a backlog that is not urgent."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from benchmarks.harness.fleet import Fleet, commands, fleet, mock
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.harness.statistics import percentile
from benchmarks.systems import OWN, PROCESSES, System
from dspex.contract.options import Lane

THREADS = 8
LATENCY_MS = 50
PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 20.0
"""How long is waited for the last start. What has not started by then has waited until then."""
EMPTY = "an empty system"
BEHIND = "behind {:,} of bulk"
STARTED = "SELECT id, started_at FROM executions WHERE program_id = %(program_id)s AND started_at IS NOT NULL"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:
    """Let the backlog be accepted, then send urgent ones, one at a time."""
    with fleet(stage, system) as made:
        with made.client() as client:
            slow, urgent = mock(client, LATENCY_MS, "slow"), mock(client, LATENCY_MS, "urgent")
        if variant != EMPTY:
            made.send(commands([slow], options.bulk, lane=Lane.BULK if made.lanes else None))
        with made.workers(THREADS, PROCESSES):
            made.accepted(PATIENCE_SECONDS)
            made.send(commands([slow], PROCESSES * THREADS, lane=Lane.HIGH if made.lanes else None))  # warm
            time.sleep(1.0)
            delays = _delays(made, urgent, options.urgent)
    return {"p95": percentile(delays, 95), "p50": percentile(delays, 50), "most": max(delays)}


def _delays(made: Fleet, program_id: object, count: int) -> list[float]:
    """Milliseconds from before the publish to the start."""
    sent: dict[object, datetime] = {}
    for command in commands([program_id], count, lane=Lane.HIGH if made.lanes else None):  # type: ignore[list-item]
        sent[command.execution_id] = datetime.now(UTC)
        made.send([command])
        time.sleep(PAUSE_SECONDS)
    until = time.monotonic() + PATIENCE_SECONDS
    while len(found := dict(made.rows(STARTED, program_id=program_id))) < count and time.monotonic() < until:
        time.sleep(PAUSE_SECONDS)
    now = datetime.now(UTC)
    return [(found.get(id_, now) - at).total_seconds() * 1000 for id_, at in sent.items()]


SCENARIO = Scenario(
    "lanes",
    "Urgent behind bulk",
    f"Two worker processes of {THREADS} threads, jobs of {LATENCY_MS} ms: the start delay of executions in the lane "
    "`high`, from before their publish, sent one after the other; in an empty system, and behind a backlog in the lane "
    f"`bulk`. What has not started {PATIENCE_SECONDS:g} s after the last was sent counts as started then.",
    (Column("p95", "start delay p95 ms", 1), Column("p50", "p50 ms", 1), Column("most", "most ms", 1)),
    (OWN,),
    lambda options: (EMPTY, BEHIND.format(options.bulk)),
    measure,
    lower_is_better=True,
)
