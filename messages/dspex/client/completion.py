"""Waiting for many executions: in order, or as they complete."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent import futures

from dspex.client.handles import Handle
from dspex.errors import NoAnswer

UNSTORED = 64
"""How many commands of a `map` may be unconfirmed. While the broker has no room, further rows wait."""


def as_completed(handles: Iterable[Handle], timeout: float | None = None) -> Iterator[Handle]:
    """Yield each handle as soon as its execution is done, successfully or not.

    Args:
        timeout: seconds for all of them, counted from the first `next`; None: no limit.

    Raises:
        NoAnswer: not all were done in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    held = set(handles)  # keeps the handles alive: an execution without a handle is not polled
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
    """The error for a wait for many executions that has timed out."""
    unstored = sum(not handle.pending.published.done() for handle in left)
    others = f", but for {unstored} whose commands are not known to be stored" if unstored else ""
    return NoAnswer(f"{len(left)} of {total} executions have not ended in {timeout or 0:g} s; they go on{others}")


def as_stored(started: Iterable[Handle]) -> Iterator[Handle]:
    """Yield handles as they are started, with at most `UNSTORED` unconfirmed commands."""
    on_their_way: deque[futures.Future[None]] = deque()
    for handle in started:
        on_their_way.append(handle.pending.published)
        if len(on_their_way) == UNSTORED:
            futures.wait([on_their_way.popleft()])
        yield handle


def in_order(started: Iterable[Handle], in_flight: int) -> Iterator[Handle]:
    """Yield handles in the order of their start, each when it is done; up to `in_flight` are started ahead.

    If starting one fails, the handles already started are yielded before the error is raised.
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
    """Like `in_order`, but as they complete."""
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
