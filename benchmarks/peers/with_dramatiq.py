"""What the peers on Dramatiq share: its RabbitMQ broker, confirms on, and results in Redis where a caller waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.job import BROKER_URL, REDIS_URL, Ask, Job
from benchmarks.peers.tables import PATIENCE_SECONDS

QUEUE = "bench"


def declare(function: Callable[..., Any], *, results: bool) -> dramatiq.Actor[..., Any]:
    """The actor of a job, on a broker that is Dramatiq's default from now on."""
    broker = RabbitmqBroker(url=BROKER_URL, confirm_delivery=True)
    if results:
        # Without a timeout of the socket's own: redis-py's is shorter than the backend's blocking read.
        client = redis.Redis.from_url(REDIS_URL, socket_timeout=None)
        broker.add_middleware(Results(backend=RedisBackend(client=client)))  # type: ignore[no-untyped-call]
    dramatiq.set_broker(broker)
    if results:
        return dramatiq.actor(queue_name=QUEUE, actor_name="run", store_results=True)(function)
    return dramatiq.actor(queue_name=QUEUE, actor_name="run")(function)


def publish(actor: dramatiq.Actor[..., Any], jobs: Iterable[Job]) -> None:
    """One after the other, each confirmed before the next: that is what the broker's `enqueue` does."""
    for job in jobs:
        actor.send(**job.message)


@contextmanager
def asking(actor: dramatiq.Actor[..., Any]) -> Generator[Ask]:
    """By the result backend, which blocks on a list of Redis."""

    def ask(job: Job) -> Any:
        return actor.send(**job.message).get_result(block=True, timeout=int(PATIENCE_SECONDS * 1000))

    yield ask
