"""Bare Dramatiq with results in Redis and no database: nothing is durable but the message, so it is the floor."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.peers import with_dramatiq
from benchmarks.peers.job import LATENCY_SECONDS, OUTPUTS, Ask, Job


def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """The work alone."""
    if LATENCY_SECONDS:
        time.sleep(LATENCY_SECONDS)
    return OUTPUTS


actor = with_dramatiq.declare(run, results=True)


def prepare() -> None:
    """The queue is declared by whoever publishes first."""


def publish(jobs: Iterable[Job]) -> None:
    """See `benchmarks.peers`."""
    with_dramatiq.publish(actor, jobs)


def asking() -> AbstractContextManager[Ask]:
    """See `benchmarks.peers`."""
    return with_dramatiq.asking(actor)
