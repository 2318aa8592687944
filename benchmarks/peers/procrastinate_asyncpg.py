"""Procrastinate: the queue is PostgreSQL itself, told of new jobs by LISTEN; the job is in asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import islice
from typing import Any

import procrastinate  # pyright: ignore[reportMissingImports]

from benchmarks.peers import tables, with_asyncpg
from benchmarks.peers.job import CONCURRENCY, DATABASE_URL, Ask, Job

BATCH = 100

connector = procrastinate.PsycopgConnector(conninfo=DATABASE_URL, min_size=4, max_size=max(4, min(CONCURRENCY, 32)))
app = procrastinate.App(connector=connector)

_pools: list[Any] = []
_connecting = asyncio.Lock()


async def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> None:
    """The job."""
    async with _connecting:
        if not _pools:
            _pools.append(await with_asyncpg.make_pool())
    await with_asyncpg.run(_pools[0], execution_id, program_id, inputs)


task: Any = app.task(name="run", queue="bench")(run)


@lru_cache(maxsize=1)
def _open() -> None:
    """Connect the producer, which is synchronous."""
    app.open()


def prepare() -> None:
    """See `benchmarks.peers`."""
    tables.create()
    _open()
    app.schema_manager.apply_schema()


def publish(jobs: Iterable[Job]) -> None:
    """By `batch_defer`, a statement and a commit for each `BATCH`."""
    _open()
    left = iter(jobs)
    while batch := [job.message for job in islice(left, BATCH)]:
        task.batch_defer(*batch)


def asking() -> AbstractContextManager[Ask]:
    """It keeps no results: the row is read."""
    _open()
    return tables.reading(lambda job: task.defer(**job.message))
