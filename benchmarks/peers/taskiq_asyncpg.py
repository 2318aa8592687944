"""Taskiq on RabbitMQ by aio-pika, with asyncpg. Its own defaults: a quorum queue, acks after the work, uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import islice
from typing import Any

from taskiq import TaskiqEvents, TaskiqState  # pyright: ignore[reportMissingImports]
from taskiq_aio_pika import AioPikaBroker, Queue  # pyright: ignore[reportMissingImports]
from taskiq_redis import RedisAsyncResultBackend  # pyright: ignore[reportMissingImports]

from benchmarks.peers import tables, with_asyncpg
from benchmarks.peers.job import BROKER_URL, CONCURRENCY, REDIS_URL, RESULTS, Ask, Job
from benchmarks.peers.tables import PATIENCE_SECONDS

WINDOW = 100
POLL_SECONDS = 0.001

broker = AioPikaBroker(BROKER_URL, qos=4 * CONCURRENCY).with_queues(Queue(name="bench"))
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(REDIS_URL))

_pools: list[Any] = []


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def connect(_: TaskiqState) -> None:
    """The pool of this worker process."""
    _pools.append(await with_asyncpg.make_pool())


async def run(execution_id: str, program_id: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The job; its outputs go to Redis too where a caller waits for them."""
    outputs = await with_asyncpg.run(_pools[0], execution_id, program_id, inputs)
    return outputs if RESULTS else None


task: Any = broker.task(task_name="run")(run)

_runner = asyncio.Runner()
_started = False


def _call(coroutine: Any) -> Any:
    global _started
    if not _started:
        _started = True
        _runner.run(broker.startup())
    return _runner.run(coroutine)


def prepare() -> None:
    """See `benchmarks.peers`."""
    tables.create()
    _call(asyncio.sleep(0))


def publish(jobs: Iterable[Job]) -> None:
    """As many at once as `WINDOW`; aio-pika waits for the confirm of each."""

    async def send() -> None:
        left = iter(jobs)
        while batch := list(islice(left, WINDOW)):
            await asyncio.gather(*(task.kiq(**job.message) for job in batch))

    _call(send())


@contextmanager
def asking() -> Generator[Ask]:
    """By the result backend, which is polled."""

    async def ask(job: Job) -> Any:
        asked = await task.kiq(**job.message)
        return (await asked.wait_result(check_interval=POLL_SECONDS, timeout=PATIENCE_SECONDS)).return_value

    yield lambda job: _call(ask(job))
