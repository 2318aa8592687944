"""Submits and cancels that race: what was told cancelled must not have run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import UUID

from benchmarks.harness.failures import Void
from benchmarks.harness.fleet import Fleet, commands, fleet, mock
from benchmarks.harness.runs import Stage
from benchmarks.harness.scenario import Column, Figures, Options, Scenario
from benchmarks.systems import OWN, PROCESSES, System
from dspex import ExecuteProgram
from dspex.client import RemoteClient
from dspex.contract.results import ExecutionView
from dspex.errors import DspexError

THREADS = 8
LATENCY_MS = 100
ASKING = 32
APART = 32
"""How many places a cancel may be ahead of its execute, or behind it."""
ENDED = "SELECT count(*) FROM executions WHERE status IN ('completed', 'failed', 'cancelled')"
STATUSES = "SELECT id, status, started_at IS NOT NULL FROM executions"


def measure(stage: Stage, options: Options, system: System, variant: str) -> Figures:  # noqa: ARG001
    """Send every execution and its cancel by two connections, in a random order, faster than they can run."""
    count = options.cancels
    with fleet(stage, system) as made:
        with made.client() as client:
            program_id = mock(client, LATENCY_MS)
        sent, began = commands([program_id], count), time.monotonic()
        with (
            made.workers(THREADS, PROCESSES) as workers,
            RemoteClient(made.broker_url, source="/cancels", validate=False) as cancels,
            ThreadPoolExecutor(ASKING) as pool,
        ):
            done = pool.map(lambda what: _do(made, cancels, what), _at_random(sent))
            told = {id_: status for id_, status in done if status is not None}
            seconds = time.monotonic() - began
            made.wait(lambda: made.number(ENDED) >= count, "each has an end", workers)
        rows = {id_: (status, started) for id_, status, started in made.rows(STATUSES)}
    cancelled = [id_ for id_, status in told.items() if status == "cancelled"]
    ran = sum(rows[id_][0] != "cancelled" for id_ in cancelled)
    if len(rows) != count:
        raise Void(f"{len(rows)} rows of {count}")
    return {
        "wrong": float(ran),
        "told": float(len(cancelled)),
        "unknown": float(sum(status == "not_found" for status in told.values())),
        "rows": float(sum(status == "cancelled" for status, _ in rows.values())),
        "begun": float(sum(rows[id_][1] for id_ in cancelled)),
        "rate": count / seconds,
    }


def _at_random(sent: Sequence[ExecuteProgram]) -> list[tuple[bool, ExecuteProgram]]:
    """Each twice: to submit and to cancel, in an order in which either may be some places ahead."""
    chosen = Random(len(sent))
    order = [
        (number + APART * chosen.random(), cancels, number) for number in range(len(sent)) for cancels in (False, True)
    ]
    return [(cancels, sent[number]) for _, cancels, number in sorted(order)]


def _do(made: Fleet, cancels: RemoteClient, what: tuple[bool, ExecuteProgram]) -> tuple[UUID, str | None]:
    """Submit, or cancel; returns what a cancel was told."""
    cancel, command = what
    if cancel:
        return command.execution_id, _cancel(cancels, command.execution_id)
    made.send([command])
    return command.execution_id, None


def _cancel(cancels: RemoteClient, execution_id: UUID) -> str:
    try:
        found: ExecutionView = cancels.cancel_execution(execution_id)
    except DspexError as error:
        return error.code
    return str(found.status)


SCENARIO = Scenario(
    "cancels",
    "Cancels that race",
    f"Each execution is sent by one connection and cancelled by another, {ASKING} at a time, either up to {APART} "
    f"places ahead of the other. Jobs of {LATENCY_MS} ms, two processes of {THREADS} threads. What was told "
    "`cancelled` and ended otherwise; what was told `cancelled`, and `not_found`; rows that ended as cancelled; those "
    "that were told so and had begun.",
    (
        Column("wrong", "told cancelled, and ran"),
        Column("told", "told cancelled"),
        Column("unknown", "told not_found"),
        Column("rows", "ended as cancelled"),
        Column("begun", "told, and had begun"),
        Column("rate", "pairs/s"),
    ),
    (OWN,),
    lambda options: (f"{options.cancels:,} at random",),
    measure,
    lower_is_better=True,
)
