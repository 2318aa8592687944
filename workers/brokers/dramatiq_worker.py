"""All use of internals of Dramatiq's worker, beyond its documented interface (dramatiq 2.2, `worker.py`).

`tests/unit/workers/brokers/test_dramatiq_worker.py` fails if an upgrade changes them.
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
    """Make a worker that takes its messages from our queue, which exists before its consumers.

    Args:
        threads: how many threads run actors.
        timeout_ms: milliseconds that idle threads sleep, and so that a stop may take.
        prefetch: how many unacked messages the broker sends, for each queue.
    """
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=timeout_ms)
    use_queue(worker, queue)
    worker.queue_prefetch = prefetch
    return worker


def queue_of(worker: dramatiq.Worker) -> WorkQueue | None:
    """The worker's queue, if it is one of ours."""
    queue: Any = worker.work_queue
    return queue if isinstance(queue, WorkQueue) else None


def use_queue(worker: dramatiq.Worker, queue: WorkQueue) -> None:
    """Make a worker that has not started take its messages from this queue, which has the methods that it calls."""
    worker.work_queue = queue  # type: ignore[assignment]


def threads_of(worker: dramatiq.Worker) -> list[threading.Thread]:
    """The threads of a started worker: those that run actors, and consumers."""
    return [*worker.workers, *worker.consumers.values()]


def name_threads(worker: dramatiq.Worker) -> None:
    """Give the threads of a worker readable names."""
    for number, thread in enumerate(worker.workers):
        thread.name = f"worker-{number}"
    for queue_name, consumer in worker.consumers.items():
        consumer.name = f"consumer-{queue_name}"


def end_actors(worker: dramatiq.Worker, deadline: float) -> Sequence[threading.Thread]:
    """Stop the threads that run actors after their current message. Returns those that have not ended.

    Args:
        deadline: how long to wait, by the monotonic clock.
    """
    for thread in worker.workers:
        thread.stop()
    for thread in worker.workers:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return [thread for thread in worker.workers if thread.is_alive()]


def abandon_actors(worker: dramatiq.Worker) -> None:
    """Make the worker's stop not wait for the threads that run actors."""
    worker.workers.clear()
