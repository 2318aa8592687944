"""Celery on RabbitMQ, results in its Redis backend."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from benchmarks.peers import tables, with_celery
from benchmarks.peers.job import REDIS_URL, Ask, Job

app, task = with_celery.make("redis", REDIS_URL)
prepare = tables.create


def publish(jobs: Iterable[Job]) -> None:
    """See `benchmarks.peers`."""
    with_celery.publish(task, jobs)


def asking() -> AbstractContextManager[Ask]:
    """See `benchmarks.peers`."""
    return with_celery.asking(task)
