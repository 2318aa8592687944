"""What both peers on Celery share: RabbitMQ with confirms, acks after the work, plain psycopg in the task.

https://docs.celeryq.dev/en/stable/userguide/optimizing.html: for short tasks, let a process reserve many.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from celery import Celery  # pyright: ignore[reportMissingImports]

from benchmarks.peers import with_psycopg
from benchmarks.peers.job import BROKER_URL, Ask, Job
from benchmarks.peers.tables import PATIENCE_SECONDS

POLL_SECONDS = 0.002


def make(name: str, backend: str) -> Any:
    """An application whose results go to `backend`, and its one task."""
    app = Celery(name, broker=BROKER_URL.replace("amqp://", "pyamqp://"), backend=backend)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True},
        result_backend_always_retry=True,
        task_acks_late=True,
        task_default_queue="bench",
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=64,
    )
    return app, app.task(with_psycopg.run, name="run")


def publish(task: Any, jobs: Iterable[Job]) -> None:
    """One after the other, each confirmed before the next."""
    for job in jobs:
        task.delay(**job.message)


@contextmanager
def asking(task: Any) -> Generator[Ask]:
    """By the result backend. Redis tells; a database is asked."""

    def ask(job: Job) -> Any:
        return task.delay(**job.message).get(timeout=PATIENCE_SECONDS, interval=POLL_SECONDS)

    yield ask
