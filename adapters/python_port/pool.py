"""The children: as many as are needed up to a bound, given out one at a time, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

from adapters.port import AdapterError
from adapters.python_port.children import Child
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server
from adapters.runs import Run
from dspex import ErrorCode


class _Waiter:
    """A thread that waits for a child, or for leave to start one."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.served = False
        self.child: Child | None = None


class Pool:
    """Gives out children, and ends those that are worn, broken or idle for long.

    Args:
        server: where they come from.

    Attributes:
        failure: why the last child that was asked for could not be started; None where it could.
    """

    def __init__(self, limits: Limits, server: Server) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._starting = 0
        self._waiting: deque[_Waiter] = deque()
        self._started = 0
        self._closed = threading.Event()
        self.failure: str | None = None
        self._server = server
        self._upkeep: threading.Thread | None = None

    @contextmanager
    def child(self, backend_id: str, deadline: float | None, run: Run) -> Generator[Child, None, None]:
        """A child to use as long as the context lasts: one that has built this program, where there is one.

        Args:
            deadline: until when to wait for one, by the monotonic clock.
            run: ends the waiting when it is cancelled.

        Raises:
            AdapterError: `timeout` or `cancelled` while waiting; or no child could be started.
        """
        child = self._take(backend_id) or self._wait(deadline, run) or self._start()
        try:
            child.prepare()
            yield child
        finally:
            self._give_back(child)

    def counts(self) -> tuple[int, int, int]:
        """How many children are busy, how many idle, and how many threads wait for one."""
        with self._lock:
            return len(self._busy) + self._starting, len(self._idle), len(self._waiting)

    def close(self) -> None:
        """End every child, for good. Safe to call twice."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for child in busy:
            child.kill()  # its thread takes notice and closes it
        for child in idle:
            child.end()
            child.close()

    def _take(self, backend_id: str) -> Child | None:
        """An idle child, if there is one."""
        with self._lock:
            while self._idle and not self._waiting:
                # The one used last, whose memory is warm, but for one that has built the program.
                index = next((i for i in reversed(range(len(self._idle))) if backend_id in self._idle[i].programs), -1)
                child = self._idle.pop(index)
                if child.alive:
                    self._busy.add(child)
                    return child
                child.close()
            return None

    def _wait(self, deadline: float | None, run: Run) -> Child | None:
        """Wait for a child, or, with None, for leave to start one."""
        waiter = _Waiter()
        with self._lock:
            if len(self._busy) + len(self._idle) + self._starting < self._limits.max_children and not self._waiting:
                self._starting += 1
                return None
            self._waiting.append(waiter)
        run.when_cancelled(waiter.woken.set)
        try:
            waiter.woken.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            run.when_cancelled(None)
        with self._lock:
            if waiter.served:
                return waiter.child
            self._waiting.remove(waiter)
        if run.cancelled.is_set():
            raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled while it waited for a child process")
        raise AdapterError(ErrorCode.TIMEOUT, "the time was up while the run waited for a child process")

    def _start(self) -> Child:
        try:
            if self._closed.is_set():
                raise AdapterError(ErrorCode.TRANSIENT, "the adapter was closed")
            child = self._server.fork()
        except BaseException as error:
            with self._lock:
                self.failure = str(error)
                self._starting -= 1
                self._serve_next(None)
            raise
        with self._lock:
            self.failure = None
            self._starting -= 1
            self._started += 1
            # Children that were started together are not to end together.
            child.spare_runs = self._limits.recycle_runs + self._started % (self._limits.recycle_runs // 4 + 1)
            self._busy.add(child)
            if self._upkeep is None:
                self._upkeep = threading.Thread(target=self._keep_up, name="python-port-upkeep", daemon=True)
                self._upkeep.start()
        return child

    def _give_back(self, child: Child) -> None:
        worn = child.runs >= child.spare_runs or child.grown_bytes >= self._limits.recycle_bytes
        if child.broken or worn or self._closed.is_set():
            child.close()
        with self._lock:
            self._busy.discard(child)
            if child.broken:
                self._serve_next(None)
            else:
                child.idle_since = time.monotonic()
                self._serve_next(child)

    def _serve_next(self, child: Child | None) -> None:
        """Hand a child, or the leave to start one, to who waits longest."""
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.served = True
            waiter.child = child
            if child is None:
                self._starting += 1
            else:
                self._busy.add(child)
            waiter.woken.set()
        elif child is not None:
            self._idle.append(child)

    def _keep_up(self) -> None:
        """End children that have been idle for long, or have died, until the pool is closed."""
        while not self._closed.wait(self._limits.idle_seconds / 4):
            longest = time.monotonic() - self._limits.idle_seconds
            with self._lock:
                ended = [child for child in self._idle if child.idle_since < longest or not child.alive]
                self._idle = [child for child in self._idle if child not in ended]
            for child in ended:
                child.close()
