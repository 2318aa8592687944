"""Dramatiq with plain psycopg: what one would write by hand, and tune. The result is the row."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.peers import tables, with_dramatiq, with_psycopg
from benchmarks.peers.job import RESULTS, Ask, Job


def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The job; its outputs go to Redis too where a caller waits for them."""
    outputs = with_psycopg.run(execution_id, program_id, inputs)
    return outputs if RESULTS else None


actor = with_dramatiq.declare(run, results=RESULTS)
prepare = tables.create


def publish(jobs: Iterable[Job]) -> None:
    """See `benchmarks.peers`."""
    with_dramatiq.publish(actor, jobs)


def asking() -> AbstractContextManager[Ask]:
    """See `benchmarks.peers`."""
    return with_dramatiq.asking(actor)
