"""The job in asyncpg: a statement for each thing to do, prepared by the driver."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg  # pyright: ignore[reportMissingImports]

from benchmarks.peers.job import CONCURRENCY, DATABASE_URL, LATENCY_SECONDS, OUTPUTS
from benchmarks.peers.tables import COUNT, FINISH, READ_PROGRAM, START

MAX_CONNECTIONS = 64

_READ_PROGRAM, _COUNT = READ_PROGRAM.format("$1"), COUNT.format("$1")
_START, _FINISH = START.format("$1", "$2", "$3"), FINISH.format("$1", "$2")
_OUTPUTS = json.dumps(OUTPUTS)


async def make_pool() -> Any:
    """The pool of a worker process."""
    size = min(CONCURRENCY, MAX_CONNECTIONS)
    return await asyncpg.create_pool(DATABASE_URL, min_size=size, max_size=size)


async def run(pool: Any, execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run one job, once however often it is delivered."""
    async with pool.acquire() as connection:
        await connection.fetchrow(_READ_PROGRAM, program_id)
        if await connection.fetchrow(_START, execution_id, program_id, json.dumps(inputs)) is None:
            return OUTPUTS  # it had been delivered before, and has completed
    if LATENCY_SECONDS:
        await asyncio.sleep(LATENCY_SECONDS)
    async with pool.acquire() as connection, connection.transaction():
        if await connection.execute(_FINISH, _OUTPUTS, execution_id) == "UPDATE 1":
            await connection.execute(_COUNT, program_id)
    return OUTPUTS
