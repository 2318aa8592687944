"""Looking up the executions that are waited for: when a notification says so, and otherwise from time to time."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from uuid import UUID

from dspex.client.pending import Pending

logger = logging.getLogger(__name__)

BATCH = 64
"""Executions that are looked up at a time."""
GROWTH = 1.5
"""Of the pause between two looks at the same execution."""


class Poller:
    """One thread, started with the first execution. What nobody holds any more is not looked up. Thread-safe.

    Args:
        look_up: looks at some executions and settles those that have ended; an error of it is logged.
        longest: seconds that the pause between two looks at an execution may grow to.
    """

    def __init__(self, look_up: Callable[[Sequence[Pending]], None], longest: Callable[[Pending], float]) -> None:
        self._look_up = look_up
        self._longest = longest
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, _Look]] = []
        self._numbers = itertools.count()
        self._looks: dict[UUID | None, set[_Look]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, pending: Pending, first: float, pause: float) -> None:
        """Look at an execution in `first` seconds, then in `pause`, and at growing intervals until it has ended."""
        with self._changed:
            look = _Look(pending, pause)
            self._index(look, pending.execution_id)
            self._schedule(look, first)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="dspex-watch", daemon=True)
                self._thread.start()

    def wake(self, execution_id: UUID, *, unless: Callable[[Pending], bool] = lambda _: False) -> None:
        """Look at an execution now, it is said to have ended; `unless` that is told in another way."""
        with self._changed:
            for look in self._looks.get(execution_id, ()):
                pending = look.pending()
                if pending is not None and not unless(pending):
                    self._schedule(look, 0.0)

    def wake_all(self, pause: float) -> None:
        """Look at all of them now, and again in `pause` seconds: what would have told of them was lost."""
        with self._changed:
            for looks in self._looks.values():
                for look in looks:
                    look.pause = min(look.pause, pause)
                    self._schedule(look, 0.0)

    def close(self, error: Callable[[], BaseException]) -> None:
        """Stop looking; what is waited for fails, each with an error of its own."""
        with self._changed:
            self._closed = True
            left = [look.pending() for looks in self._looks.values() for look in looks]
            self._changed.notify()
        for pending in left:
            if pending is not None:
                pending.fail(error())

    def _schedule(self, look: _Look, pause: float) -> None:
        due = time.monotonic() + pause
        first = not self._queue or due < self._queue[0][0]
        look.due = due
        heapq.heappush(self._queue, (due, next(self._numbers), look))
        if first:
            self._changed.notify()

    def _index(self, look: _Look, key: UUID | None) -> None:
        look.key = key
        self._looks.setdefault(key, set()).add(look)

    def _forget(self, look: _Look) -> None:
        looks = self._looks.get(look.key, set())
        looks.discard(look)
        if not looks:
            self._looks.pop(look.key, None)

    def _run(self) -> None:
        while (due := self._next()) is not None:
            found = [pending for look in due if (pending := look.pending()) is not None]
            try:
                self._look_up(found)
            except Exception:
                logger.exception("Executions cannot be looked up; it is tried again.")
            del found  # or they would be held until the next ones are due
            self._again(due)

    def _next(self) -> list[_Look] | None:
        """Those that are due, as soon as there are any."""
        with self._changed:
            while not self._closed:
                due = self._take()
                if due:
                    return due
                self._changed.wait(self._queue[0][0] - time.monotonic() if self._queue else None)
            return None

    def _take(self) -> list[_Look]:
        taken: list[_Look] = []
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now and len(taken) < BATCH:
            due, _, look = heapq.heappop(self._queue)
            if look.due != due:
                continue  # it was scheduled anew
            if look.over:
                self._forget(look)
            else:
                look.due = math.inf
                taken.append(look)
        return taken

    def _again(self, looks: Sequence[_Look]) -> None:
        with self._changed:
            for look in looks:
                pending = look.pending()
                if pending is None or look.over:
                    self._forget(look)
                    continue
                if pending.execution_id != look.key:
                    self._forget(look)
                    self._index(look, pending.execution_id)
                if look.due == math.inf:  # else a notification came while it was looked up
                    self._schedule(look, look.pause)
                    look.pause = min(self._longest(pending), look.pause * GROWTH)


class _Look:
    """When an execution is looked at next: `due` in seconds of `time.monotonic`, infinite while it is looked at."""

    def __init__(self, pending: Pending, pause: float) -> None:
        self.pending = weakref.ref(pending)
        self.pause = pause
        self.due = 0.0
        self.key: UUID | None = None

    @property
    def over(self) -> bool:
        """Whether nobody waits, or there is nothing to wait for."""
        pending = self.pending()
        return pending is None or pending.ended.done()
