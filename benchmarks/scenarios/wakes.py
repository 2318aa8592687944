"""How soon an idle process begins what another one has accepted and cannot run."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import WORKER_PID, commands, fleet, mock
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.harness.statistics import percentile
from benchmarks.systems import OWN, System

WARM_UP = 20
PAUSE_SECONDS = 0.02
BUSY_MS = 3_600_000
RUNNING = "SELECT count(*) FROM executions WHERE status = 'running'"
ENDED = "SELECT count(*) FROM executions WHERE status = 'completed'"
DELAYS = f"""
SELECT extract(epoch FROM started_at - inserted_at)::float * 1000 FROM executions
WHERE status = 'completed' AND timeline->0->>'status' = 'pending' AND inserted_at > %(since)s AND {WORKER_PID}
"""


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Fill one worker, start another that idles, and send one at a time: the broker gives each its turn."""
    count = options.urgent
    with fleet(stage, system) as made:
        with made.client() as client:
            quick, busy = mock(client), mock(client, BUSY_MS, "busy")
        with made.workers(1):
            made.send(commands([busy], 1))
            made.wait(lambda: made.number(RUNNING) >= 1, "the first worker is busy")
            with made.workers(8) as idle:
                made.send(commands([quick], WARM_UP))
                made.wait(lambda: made.number(ENDED) >= WARM_UP, "the idle worker has begun some")
                since = datetime.now(UTC)
                for command in commands([quick], count):
                    made.send([command])
                    time.sleep(PAUSE_SECONDS)
                time.sleep(1.0)
                delays = [row[0] for row in made.rows(DELAYS, pid=idle.pids[0], since=since)]
                ended = made.number(ENDED)
    if len(delays) < count / 10:
        raise Void(f"the idle worker began {len(delays)} that the other one had accepted; {ended:g} of {count} ended")
    return {"p95": percentile(delays, 95), "p50": percentile(delays, 50), "ended": ended - WARM_UP}


SCENARIO = Scenario(
    "wakes",
    "An idle worker is woken",
    "A worker of one thread is busy, and one of eight idles. Executions are sent one at a time, and the broker gives "
    "both in turn; of those that the busy one accepted, the time from the transaction that accepted to the one that "
    "chose.",
    (Column("p95", "p95 ms", 1), Column("p50", "p50 ms", 1), Column("ended", "ended")),
    (OWN,),
    lambda _: ("one waits",),
    measure,
    lower_is_better=True,
)
