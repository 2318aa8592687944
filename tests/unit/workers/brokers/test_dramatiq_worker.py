"""What of Dramatiq's insides `workers.brokers.dramatiq_worker` leans on: an upgrade that changes it fails here."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.worker
import pytest

from tests.waiting import wait_until
from workers.brokers import dramatiq_worker
from workers.brokers.delivery import Delivery
from workers.brokers.encoding import CloudEventEncoder
from workers.brokers.memory import MemoryBroker
from workers.brokers.work_queue import WorkQueue

SECONDS = 10


class Counting(WorkQueue):
    """Counts what is put in."""

    def __init__(self) -> None:
        super().__init__()
        self.put_in = 0

    def put(self, item: Any) -> None:
        self.put_in += 1
        super().put(item)


class Scene:
    """A worker of two threads with one actor, which waits until it may return."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(max_bytes=1_000)
        self.handled = threading.Semaphore(0)
        self.may_return = threading.Event()
        dramatiq.actor(actor_name="act", queue_name="jobs", broker=self.broker)(self._act)
        self.queue = Counting()
        self.worker = dramatiq_worker.make_worker(self.broker, self.queue, threads=2, timeout_ms=50, prefetch=3)

    def _act(self) -> None:
        self.handled.release()
        self.may_return.wait(SECONDS)

    def send(self) -> None:
        self.broker.enqueue(dramatiq.Message("jobs", "act", (), {}, {}))


@pytest.fixture
def scene() -> Iterator[Scene]:
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(CloudEventEncoder(1_000))
    scene = Scene()
    scene.worker.start()
    try:
        yield scene
    finally:
        scene.may_return.set()
        scene.worker.stop()
        dramatiq.set_encoder(before)


def test_its_consumers_and_threads_have_our_queue(scene: Scene) -> None:
    assert dramatiq_worker.queue_of(scene.worker) is scene.queue
    threads: list[Any] = [*scene.worker.consumers.values(), *scene.worker.workers]
    assert [thread.work_queue for thread in threads] == [scene.queue] * 3
    assert [consumer.prefetch for consumer in scene.worker.consumers.values()] == [3]


def test_its_threads_are_known_and_named(scene: Scene) -> None:
    dramatiq_worker.name_threads(scene.worker)
    threads = dramatiq_worker.threads_of(scene.worker)
    assert sorted(thread.name for thread in threads) == ["consumer-jobs", "worker-0", "worker-1"]
    assert all(thread.is_alive() for thread in threads)


def test_actors_end_by_a_deadline(scene: Scene) -> None:
    assert dramatiq_worker.end_actors(scene.worker, time.monotonic() + SECONDS) == []
    wait_until(lambda: not any(thread.is_alive() for thread in scene.worker.workers), "they end")
    dramatiq_worker.abandon_actors(scene.worker)
    assert scene.worker.workers == []


def test_a_delivery_is_cleared_as_often_as_it_is_handled() -> None:
    nowhere: Any = None
    delivery = Delivery(dramatiq.Message("jobs", "act", (), {}, {}), nowhere, 0)
    for _ in range(2):
        delivery.clear_exception()  # a thread does, outside of what it catches: dramatiq 2.2.0 ended here


def test_all_that_it_calls_of_a_queue_is_there() -> None:
    source = Path(dramatiq.worker.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r"\bwork_queue\.(\w+)", source))
    only_in_tests_of_dramatiq = {"join", "unfinished_tasks"}  # `Worker.join`, which nobody of ours calls
    assert called - only_in_tests_of_dramatiq == {"get", "put", "task_done"}
    assert re.findall(r"iter_queue\((.*?)\)", source)[:1] == ["self.work_queue"]  # it takes by `get_nowait`
    assert all(hasattr(WorkQueue, name) for name in ("get", "put", "task_done", "get_nowait"))
