"""PgQueuer: the queue is PostgreSQL itself, told of new jobs by LISTEN; queue and job are in asyncpg."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from itertools import islice
from typing import Any

import asyncpg  # pyright: ignore[reportMissingImports]
import pgqueuer  # pyright: ignore[reportMissingImports]
import uvloop  # pyright: ignore[reportMissingImports]
from pgqueuer import PgQueuer  # pyright: ignore[reportMissingImports]
from pgqueuer.db import AsyncpgDriver  # pyright: ignore[reportMissingImports]
from pgqueuer.queries import Queries  # pyright: ignore[reportMissingImports]

from benchmarks.peers import tables, with_asyncpg
from benchmarks.peers.job import DATABASE_URL, Ask, Job

BATCH = 100
ENTRYPOINT = "run"


@asynccontextmanager
async def main() -> AsyncGenerator[PgQueuer]:
    """What a worker process runs."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(DATABASE_URL)))
    pool = await with_asyncpg.make_pool()

    @queuer.entrypoint(ENTRYPOINT)
    async def run(job: Any) -> None:
        await with_asyncpg.run(pool, **json.loads(job.payload))

    yield queuer
    await pool.close()


_runner = asyncio.Runner()
_queries: list[Any] = []


async def _connected() -> Any:
    if not _queries:
        _queries.append(Queries(AsyncpgDriver(await asyncpg.connect(DATABASE_URL))))
    return _queries[0]


def prepare() -> None:
    """See `benchmarks.peers`."""
    tables.create()

    async def install() -> None:
        await (await _connected()).install()

    _runner.run(install())


def publish(jobs: Iterable[Job]) -> None:
    """By `enqueue` of many, a statement and a commit for each `BATCH`."""

    async def send() -> None:
        queries, left = await _connected(), iter(jobs)
        while batch := list(islice(left, BATCH)):
            payloads = [json.dumps(job.message).encode() for job in batch]
            await queries.enqueue([ENTRYPOINT] * len(batch), payloads, [0] * len(batch))

    _runner.run(send())


def asking() -> AbstractContextManager[Ask]:
    """It keeps no results, and tells of the end of a job 50 ms late: the row is read."""
    return tables.reading(lambda job: publish([job]))


if __name__ == "__main__":
    # What `pgq run` does; its options cannot be read with the newest typer.
    batch_size, concurrency = map(int, sys.argv[1:])
    uvloop.run(pgqueuer.run(main, batch_size=batch_size, max_concurrent_tasks=concurrency))
