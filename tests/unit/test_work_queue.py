"""The queue between consumers and actors: nothing is lost, nobody sleeps while there is work."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Empty
from typing import Any

import pytest

from deploy.processes import wait_until
from workers.brokers.work_queue import WorkQueue

PATIENCE = 30.0


@dataclass
class Message:
    source: Any = None


@dataclass
class Item:
    name: str
    priority: int = 10
    message: Any = None


def names(queue: WorkQueue) -> list[str]:
    found = []
    while len(queue):
        item: Any = queue.get_nowait()
        found.append(item.name)
    return found


def test_first_in_first_out_but_what_is_urgent_before() -> None:
    queue = WorkQueue()
    for name, priority in (("a", 10), ("b", 10), ("x", 0), ("c", 10), ("y", 0)):
        queue.put(Item(name, priority))
    assert queue.qsize() == 5
    assert names(queue) == ["x", "y", "a", "b", "c"]


def test_empty() -> None:
    queue = WorkQueue()
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    queue.put(Item("a"))
    assert names(queue) == ["a"]


def test_what_came_from_a_source_that_is_gone() -> None:
    queue, gone, there = WorkQueue(), object(), object()
    for name, priority, source in (
        ("a", 10, gone),
        ("b", 10, there),
        ("x", 0, gone),
        ("y", 0, there),
        ("c", 10, there),
    ):
        queue.put(Item(name, priority, Message(source)))
    dropped: list[Any] = queue.forget(gone)  # type: ignore[arg-type]
    assert [item.name for item in dropped] == ["x", "a"]
    assert names(queue) == ["y", "b", "c"]


def test_jobs_that_wait_are_taken_by_every_thread() -> None:
    """Each is woken by the one before it: a chain that breaks would leave threads asleep beside work."""
    queue, inside, let_end = WorkQueue(), threading.Semaphore(0), threading.Event()

    def work() -> None:
        queue.get(timeout=PATIENCE)
        inside.release()
        let_end.wait(PATIENCE)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(queue._asleep) == 16, PATIENCE)
    for number in range(16):
        queue.put(Item(str(number)))
    for _ in range(16):
        assert inside.acquire(timeout=PATIENCE)
    let_end.set()
    for thread in threads:
        thread.join(PATIENCE)


def test_nothing_is_lost_where_sleep_ends_as_an_item_comes() -> None:
    queue, total = WorkQueue(), 3_000
    found: list[str] = []

    def work() -> None:
        while len(found) < total:
            try:
                item: Any = queue.get(timeout=0.0002)
            except Empty:
                continue
            found.append(item.name)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(total):
        queue.put(Item(str(number)))
    assert wait_until(lambda: len(found) == total, PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(found, key=int) == [str(number) for number in range(total)]
