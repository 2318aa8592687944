"""What of Dramatiq's worker we lean on, beyond its documented interface: all of it is here (dramatiq 2.2, `worker.py`).

`tests/unit/workers/brokers/test_dramatiq_worker.py` fails where an upgrade changes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import dramatiq

from workers.brokers.work_queue import WorkQueue


def make_worker(
    broker: dramatiq.Broker, queue: WorkQueue, *, threads: int, timeout_ms: int, prefetch: int
) -> dramatiq.Worker:
    """A worker that takes its messages from a queue of ours, which is made before its consumers are.

    Args:
        threads: that run actors.
        timeout_ms: how long idle threads sleep, and so how long a stop may take.
        prefetch: how many messages the broker sends ahead, for each queue.
    """
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=timeout_ms)
    use_queue(worker, queue)
    worker.queue_prefetch = prefetch
    return worker


def queue_of(worker: dramatiq.Worker) -> WorkQueue | None:
    """Its queue of work, where that is one of ours."""
    queue: Any = worker.work_queue
    return queue if isinstance(queue, WorkQueue) else None


def use_queue(worker: dramatiq.Worker, queue: WorkQueue) -> None:
    """Have a worker that has not started take its messages from this queue, which has all that it calls."""
    worker.work_queue = queue  # type: ignore[assignment]


def threads_of(worker: dramatiq.Worker) -> list[threading.Thread]:
    """The threads of a worker that has started: those that run actors, and those that consume."""
    return [*worker.workers, *worker.consumers.values()]


def name_threads(worker: dramatiq.Worker) -> None:
    """Give the threads of a worker names for people."""
    for number, thread in enumerate(worker.workers):
        thread.name = f"worker-{number}"
    for queue_name, consumer in worker.consumers.items():
        consumer.name = f"consumer-{queue_name}"


def end_actors(worker: dramatiq.Worker, deadline: float) -> Sequence[threading.Thread]:
    """Have its threads take no more messages, and wait for what they handle; returns those that have not ended.

    Args:
        deadline: by the monotonic clock.
    """
    for thread in worker.workers:
        thread.stop()
    for thread in worker.workers:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return [thread for thread in worker.workers if thread.is_alive()]


def abandon_actors(worker: dramatiq.Worker) -> None:
    """Do not wait for the threads that run actors when the worker is stopped."""
    worker.workers.clear()
