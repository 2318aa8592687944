"""The queue between consumers and actors: nothing is lost, nobody sleeps while there is work."""

from __future__ import annotations

import contextlib
import threading
import time
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


def test_what_is_slow_leaves_threads_to_what_is_quick() -> None:
    """Of 10 two at a time, of 5 and 10 together three, of 0 as many as there are threads."""
    queue = WorkQueue({10: 2, 5: 3})
    taken: list[str] = []
    let_end = threading.Event()

    def work() -> None:
        item: Any = queue.get(timeout=PATIENCE)
        taken.append(item.name)
        let_end.wait(PATIENCE)
        while len(taken) < 9:
            with contextlib.suppress(Empty):
                again: Any = queue.get(timeout=0.05)
                taken.append(again.name)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for number in range(4):
        queue.put(Item(f"slow {number}", 10))
    assert wait_until(lambda: len(taken) == 2, PATIENCE)
    for number in range(3):
        queue.put(Item(f"change {number}", 5))
    assert wait_until(lambda: len(taken) == 3, PATIENCE)
    for number in range(2):
        queue.put(Item(f"quick {number}", 0))
    assert wait_until(lambda: len(taken) == 5, PATIENCE)
    assert set(taken) == {"slow 0", "slow 1", "change 0", "quick 0", "quick 1"}
    assert len(queue) == 4
    let_end.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(taken[5:]) == ["change 1", "change 2", "slow 2", "slow 3"]


def test_what_is_put_aside_comes_again_in_its_time_and_takes_no_thread() -> None:
    queue = WorkQueue()
    found: list[tuple[str, float]] = []
    begun = time.monotonic()

    def work() -> None:
        while len(found) < 4 and time.monotonic() < begun + PATIENCE:
            try:
                item: Any = queue.get(timeout=PATIENCE)
            except Empty:
                continue
            found.append((item.name, time.monotonic() - begun))

    thread = threading.Thread(target=work)
    thread.start()
    assert wait_until(lambda: len(queue._asleep) == 1, PATIENCE)
    # The thread sleeps for long: it is told of an earlier moment each time.
    for name, seconds in (("c", 0.6), ("b", 0.4), ("a", 0.2)):
        queue.put_aside(Item(name), seconds)
    assert (len(queue.aside), queue.qsize()) == (3, 0)
    queue.put(Item("now"))
    thread.join(PATIENCE)
    assert [name for name, _ in found] == ["now", "a", "b", "c"]
    assert all(after >= due for (_, after), due in zip(found[1:], (0.2, 0.4, 0.6), strict=True))
    assert queue.aside == []


def test_what_was_put_aside_is_forgotten_with_its_source() -> None:
    queue, gone, there = WorkQueue(), object(), object()
    queue.put_aside(Item("a", message=Message(gone)), 0)
    queue.put_aside(Item("b", message=Message(there)), 0)
    dropped: list[Any] = queue.forget(gone)  # type: ignore[arg-type]
    assert [item.name for item in dropped] == ["a"]
    item: Any = queue.get(timeout=PATIENCE)
    assert item.name == "b"
    assert queue.aside == []
