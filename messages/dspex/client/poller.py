"""Looks up the executions that someone waits for: when notified, and otherwise at intervals."""

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
"""How many executions are looked up at a time."""
GROWTH = 1.5
"""The factor by which the interval between two look-ups of an execution grows."""


class Poller:
    """Looks up executions in one thread, which starts with the first. Drops those without a handle. Thread-safe.

    Args:
        look_up: looks up some executions and completes those that have ended. Its errors are logged.
        longest: returns the longest interval between two look-ups of an execution, in seconds.
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
        """Look an execution up after `first` seconds, then after `pause`, then at growing intervals until it ends."""
        with self._changed:
            look = _Look(pending, pause)
            self._index(look, pending.execution_id)
            self._schedule(look, first)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="dspex-poller", daemon=True)
                self._thread.start()

    def wake(self, execution_id: UUID, *, unless: Callable[[Pending], bool] = lambda _: False) -> None:
        """Look an execution up now, as it is said to have ended, unless `unless` returns True."""
        with self._changed:
            for look in self._looks.get(execution_id, ()):
                pending = look.pending()
                if pending is not None and not unless(pending):
                    self._schedule(look, 0.0)

    def wake_all(self, pause: float) -> None:
        """Look all executions up now, and again after `pause` seconds: notifications were lost."""
        with self._changed:
            for looks in self._looks.values():
                for look in looks:
                    look.pause = min(look.pause, pause)
                    self._schedule(look, 0.0)

    def close(self, error: Callable[[], BaseException]) -> None:
        """Stop, and fail every execution with an error of its own."""
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
                logger.exception("Executions could not be looked up; trying again.")
            del found  # otherwise this frame would keep them alive until the next ones are due
            self._again(due)

    def _next(self) -> list[_Look] | None:
        """Wait for the executions that are due next. None: the poller is closed."""
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
                continue  # it was scheduled again since
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
                if look.due == math.inf:  # otherwise a notification came meanwhile
                    self._schedule(look, look.pause)
                    look.pause = min(self._longest(pending), look.pause * GROWTH)


class _Look:
    """The next look-up of an execution. `due` is in seconds of `time.monotonic`, and infinite during a look-up."""

    def __init__(self, pending: Pending, pause: float) -> None:
        self.pending = weakref.ref(pending)
        self.pause = pause
        self.due = 0.0
        self.key: UUID | None = None

    @property
    def over(self) -> bool:
        """Whether nobody holds the execution any more, or it has ended."""
        pending = self.pending()
        return pending is None or pending.ended.done()
