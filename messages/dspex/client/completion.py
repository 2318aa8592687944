"""Waiting for many executions: in order, or each when it is done."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent import futures

from dspex.client.handles import Handle
from dspex.errors import NoAnswer

UNSTORED = 64
"""Commands of a `map` that are not stored yet. Where the broker has no room, each waits for those before it."""


def as_completed(handles: Iterable[Handle], timeout: float | None = None) -> Iterator[Handle]:
    """The handles, each when it is done, whatever it came to.

    Args:
        timeout: seconds for all of them, from the first that is asked for; None: without end.

    Raises:
        NoAnswer: they were not all done in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    held = set(handles)  # an execution that nobody holds is not looked up
    total = len(held)
    finished: queue.SimpleQueue[Handle] = queue.SimpleQueue()
    for handle in held:
        handle.add_done_callback(finished.put)
    while held:
        try:
            handle = finished.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise late(held, total, timeout) from None
        held.remove(handle)
        yield handle


def late(left: Collection[Handle], total: int, timeout: float | None) -> NoAnswer:
    """The error of who has waited long enough for many."""
    unstored = sum(not handle.pending.published.done() for handle in left)
    others = f", but for {unstored} whose commands are not known to be stored" if unstored else ""
    return NoAnswer(f"{len(left)} of {total} executions have not ended in {timeout or 0:g} s; they go on{others}")


def as_stored(started: Iterable[Handle]) -> Iterator[Handle]:
    """Handles as they are started, while the broker keeps up: at most `UNSTORED` of their commands are on their way."""
    on_their_way: deque[futures.Future[None]] = deque()
    for handle in started:
        on_their_way.append(handle.pending.published)
        if len(on_their_way) == UNSTORED:
            futures.wait([on_their_way.popleft()])
        yield handle


def in_order(started: Iterable[Handle], in_flight: int) -> Iterator[Handle]:
    """Handles as they are started, each when it is done, in their order; `in_flight` are started and not given out.

    Where no more can be started, those that were are given out before the error is raised.
    """
    window: deque[Handle] = deque()

    def rest() -> Iterator[Handle]:
        while window:
            yield _done(window.popleft())

    try:
        for handle in started:
            window.append(handle)
            if len(window) == in_flight:
                yield _done(window.popleft())
    except Exception:
        yield from rest()
        raise
    yield from rest()


def as_done(started: Iterable[Handle], in_flight: int) -> Iterator[Handle]:
    """As `in_order`, each when it is done."""
    held: set[Handle] = set()
    finished: queue.SimpleQueue[Handle] = queue.SimpleQueue()

    def rest() -> Iterator[Handle]:
        while held:
            held.remove(handle := finished.get())
            yield handle

    try:
        for handle in started:
            held.add(handle)
            handle.add_done_callback(finished.put)
            if len(held) == in_flight:
                held.remove(done := finished.get())
                yield done
    except Exception:
        yield from rest()
        raise
    yield from rest()


def _done(handle: Handle) -> Handle:
    futures.wait([handle.pending.ended])
    return handle
