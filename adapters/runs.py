"""The runs of an adapter: those in progress, which of them were cancelled, and counts of those that ended."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from adapters.port import AdapterError, AdapterStats
from dspex import ErrorCode


class Run:
    """One run in progress.

    Attributes:
        cancelled: set when the run must stop.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def when_cancelled(self, stop: Callable[[], None] | None) -> None:
        """Call `stop` in the cancelling thread when the run is cancelled, or at once if it is already cancelled.

        It replaces the previous `stop`, which is not called after this method has returned; None removes it. `stop`
        must not block, and must not call this run.
        """
        with self._lock:
            self._stop = stop
            if stop is not None and self.cancelled.is_set():
                stop()

    def cancel(self) -> None:
        """Cancel the run."""
        with self._lock:
            again = self.cancelled.is_set()
            self.cancelled.set()
            if self._stop is not None and not again:
                self._stop()


class Runs:
    """The runs of one adapter, by their ids. Two runs may have the same id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, set[Run]] = {}
        self._ended = 0
        self._failures: Counter[ErrorCode] = Counter()

    @contextmanager
    def begin(self, run_id: str) -> Generator[Run]:
        """A run for the time of the context. It is counted when it ends; an `AdapterError` is counted by its code."""
        run = Run()
        with self._lock:
            self._running.setdefault(run_id, set()).add(run)
        code: ErrorCode | None = ErrorCode.INTERNAL
        try:
            yield run
            code = None
        except AdapterError as error:
            code = error.code
            raise
        finally:
            with self._lock:
                same = self._running[run_id]
                same.discard(run)
                if not same:
                    del self._running[run_id]
                self._ended += 1
                if code is not None:
                    self._failures[code] += 1

    def cancel(self, run_id: str) -> bool:
        """Cancel every run with this id. Returns whether there was one."""
        with self._lock:
            found = list(self._running.get(run_id, ()))
        for run in found:
            run.cancel()
        return bool(found)

    def cancel_all(self) -> None:
        """Cancel every run."""
        with self._lock:
            found = [run for same in self._running.values() for run in same]
        for run in found:
            run.cancel()

    def stats(self, programs: int) -> AdapterStats:
        """The counts so far. `programs` is how many programs the adapter keeps."""
        with self._lock:
            running = sum(map(len, self._running.values()))
            return AdapterStats(programs, running, self._ended, dict(self._failures))
