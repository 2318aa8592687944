"""Wakes a process that has time: when the database says that executions wait, and when one is due that ran here.

Where the database says nothing (SQLite, or a pooler between), the relay's look of each second finds what waits.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from dspex.backoff import doubled
from dspex.errors import DatabaseUnavailable
from store.queues.listening import Listening, listen
from workers.application.wiring import Application

logger = logging.getLogger(__name__)

SOON_SECONDS = 60.0
"""What is due later is left to the relay's look of each second."""
EXACT_SECONDS = 0.01
"""Moments are rounded up to so many seconds, so that a process remembers few."""
FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0
"""Seconds until the database is listened to again, after it was lost."""


class Waker:
    """A thread that wakes the process.

    Args:
        look: chooses executions, if there is time for some. `wake` says that some are due by now.
    """

    def __init__(self, app: Application, look: Callable[..., None]) -> None:
        self._app = app
        self._look = look
        self._lock = threading.Lock()
        self._moments: list[int] = []  # a heap, in units of `EXACT_SECONDS` by the monotonic clock
        self._calls: dict[int, set[Callable[[], None] | None]] = {}  # what is called at each
        self._stopped = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._bell, self._rung = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rung, False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._listening: Listening | None = None
        self._lost = 0  # how often, since it was last listened to
        self._listen_at = 0.0
        self.thread = threading.Thread(target=self._run, name="waker", daemon=True)

    def later(self, seconds: float, call: Callable[[], None] | None = None) -> None:
        """In so many seconds, call this; None: look for what is due. Thread-safe."""
        if seconds > SOON_SECONDS:
            return
        moment = int((time.monotonic() + seconds) / EXACT_SECONDS) + 1
        with self._lock:
            if moment in self._calls:
                self._calls[moment].add(call)
                return
            self._calls[moment] = {call}
            heapq.heappush(self._moments, moment)
            first = self._moments[0] == moment
        if first:
            self._ring()

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for it."""
        self._stopped.set()
        self._ring()
        self.thread.join(timeout=5)

    def _ring(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):  # it has been rung often enough, or has stopped
            os.write(self._rung, b"!")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._run_once()
            except Exception:
                logger.exception("The waker failed; it goes on.")
                self._stopped.wait(LAST_PAUSE)
        self._unlisten()
        self._selector.close()
        os.close(self._bell)

    def _run_once(self) -> None:
        if time.monotonic() >= self._listen_at:
            self._listen()
        told = self._wait()
        due = self._take_due()
        if self._stopped.is_set():
            return
        for call in due - {None}:
            if call is not None:
                call()
        if told or None in due:
            self._look(wake=None in due)

    def _listen(self) -> None:
        """Listen to the database, and look for what was offered meanwhile."""
        self._listen_at = math.inf
        try:
            self._listening = listen(self._app.engine)
        except DatabaseUnavailable as error:
            self._lose(error)
            return
        if self._listening is not None:
            self._selector.register(self._listening, selectors.EVENT_READ)
            self._lost = 0
            self._look(wake=True)

    def _lose(self, error: DatabaseUnavailable) -> None:
        self._unlisten()
        self._app.episodes.tell("The database does not say what waits: it is looked at each second", error.message)
        self._listen_at = time.monotonic() + doubled(FIRST_PAUSE, LAST_PAUSE, self._lost)
        self._lost += 1

    def _unlisten(self) -> None:
        lost, self._listening = self._listening, None
        if lost is not None:
            self._selector.unregister(lost)
            lost.close()

    def _wait(self) -> bool:
        """Wait until something is due, or the database says that something waits. Returns whether it has."""
        with self._lock:
            moment = self._moments[0] * EXACT_SECONDS if self._moments else math.inf
        until = min(moment, self._listen_at)
        timeout = None if until == math.inf else max(0.0, until - time.monotonic())
        told = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj == self._bell:
                with suppress(BlockingIOError):
                    os.read(self._bell, 4096)
            elif self._listening is not None:
                try:
                    told = self._listening.heard()
                except DatabaseUnavailable as error:
                    self._lose(error)
        return told

    def _take_due(self) -> set[Callable[[], None] | None]:
        now, due = time.monotonic() / EXACT_SECONDS, set[Callable[[], None] | None]()
        with self._lock:
            while self._moments and self._moments[0] <= now:
                due |= self._calls.pop(heapq.heappop(self._moments))
        return due
