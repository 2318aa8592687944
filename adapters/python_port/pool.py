"""The children: as many as are needed up to a bound, given out one at a time, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from adapters.port import AdapterError
from adapters.python_port.children import Child
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server
from adapters.runs import Run
from dspex import ErrorCode

STARTERS: Final = 4
"""Threads that start children: on a busy machine most of the time is spent waiting for the new process to get a CPU."""

BUILDING: Final = 2
"""Children beside all that run, for those who build a program: they come first, and wait for no run."""


class _Waiter:
    """A thread that waits for a child. `woken` is set when it has one, or an error, or its run was cancelled."""

    def __init__(self, builds: bool) -> None:
        self.builds = builds
        self.woken = threading.Event()
        self.child: Child | None = None
        self.error: Exception | None = None


class Pool:
    """Gives out children, and ends those that are worn, broken or idle for long.

    Threads of its own start them, so that a run whose time is up need not wait for a child to be ready; that child
    goes to the next one.

    Args:
        server: where they come from.

    Attributes:
        failure: why the last child that was asked for could not be started; None where it could.
    """

    def __init__(self, limits: Limits, server: Server) -> None:
        self.failure: str | None = None
        self._limits = limits
        self._server = server
        self._changed = threading.Condition()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._waiting: deque[_Waiter] = deque()
        self._started = 0
        self._closed = False
        self._starting = 0
        self._starters: list[threading.Thread] = []

    @contextmanager
    def child(
        self, backend_id: str, deadline: float | None, run: Run, *, builds: bool = False
    ) -> Generator[Child, None, None]:
        """A child to use as long as the context lasts: one that has built this program, where there is one.

        Args:
            deadline: until when to wait for one, by the monotonic clock.
            run: ends the waiting when it is cancelled.
            builds: it is to build a program, and not to run one.

        Raises:
            AdapterError: `timeout` or `cancelled` while waiting; or no child could be started.
        """
        child = self._take(backend_id) or self._wait(deadline, run, builds)
        try:
            child.prepare()
            yield child
        finally:
            self._give_back(child)

    def counts(self) -> tuple[int, int, int]:
        """How many children are busy, how many idle, and how many threads wait for one."""
        with self._changed:
            return len(self._busy), len(self._idle), len(self._waiting)

    def close(self) -> None:
        """End every child, for good. Safe to call twice."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
            for waiter in self._waiting:
                waiter.error = _closed()
                waiter.woken.set()
            self._waiting.clear()
            self._changed.notify_all()
        for child in busy:
            child.kill()  # its thread takes notice and closes it
        for child in idle:
            child.end()
            child.close()
        for thread in self._starters:
            thread.join()

    def _take(self, backend_id: str) -> Child | None:
        """An idle child, if there is one."""
        with self._changed:
            while self._idle and not self._waiting:
                # The one used last, whose memory is warm, but for one that has built the program.
                index = next((i for i in reversed(range(len(self._idle))) if backend_id in self._idle[i].programs), -1)
                child = self._idle.pop(index)
                if child.alive:
                    self._busy.add(child)
                    return child
                child.close()
            return None

    def _wait(self, deadline: float | None, run: Run, builds: bool) -> Child:
        """Wait for a child that is free, or that was started."""
        waiter = _Waiter(builds)
        with self._changed:
            if self._closed:
                raise _closed()
            if builds:
                self._waiting.appendleft(waiter)
            else:
                self._waiting.append(waiter)
            if not self._starters:
                for _ in range(STARTERS):
                    thread = threading.Thread(target=self._keep, name="python-port-pool", daemon=True)
                    self._starters.append(thread)
                    thread.start()
            self._changed.notify_all()
        run.when_cancelled(waiter.woken.set)
        try:
            waiter.woken.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            run.when_cancelled(None)
        with self._changed:
            if waiter.child is not None:
                return waiter.child
            if waiter.error is not None:
                raise waiter.error
            self._waiting.remove(waiter)
        if run.cancelled.is_set():
            raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled while it waited for a child process")
        raise AdapterError(ErrorCode.TIMEOUT, "the time was up while the run waited for a child process")

    def _give_back(self, child: Child) -> None:
        with self._changed:
            self._busy.discard(child)
            worn = child.runs >= child.spare_runs or child.grown_bytes >= self._limits.recycle_bytes
            spare = len(self._busy) + len(self._idle) + self._starting >= self._limits.max_children
            kept = not (child.broken or worn or spare or self._closed)
            if kept:
                self._hand_out(child)
            self._changed.notify_all()
        if not kept:
            child.close()

    def _hand_out(self, child: Child) -> None:
        """To who waits longest, else among the idle."""
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.child = child
            self._busy.add(child)
            waiter.woken.set()
        else:
            child.idle_since = time.monotonic()
            self._idle.append(child)

    def _keep(self) -> None:
        """Start children while threads wait for them, and end idle ones, until the pool is closed."""
        while not self._closed:
            with self._changed:
                if not self._short and not self._closed:  # closed since: nobody would notify again
                    self._changed.wait(self._limits.idle_seconds / 4)
                short = self._short
                self._starting += short
            if short:
                self._start()
            self._end_idle()

    @property
    def _next_builds(self) -> bool:
        """Whether the first of those who wait is to build."""
        return bool(self._waiting) and self._waiting[0].builds

    @property
    def _short(self) -> bool:
        """Whether a child is to be started."""
        there = len(self._busy) + len(self._idle) + self._starting
        if there < self._limits.max_children:
            wait = len(self._waiting)
        elif there < self._limits.max_children + BUILDING:
            wait = sum(waiter.builds for waiter in self._waiting)
        else:
            wait = 0
        return wait > self._starting and not self._closed

    def _start(self) -> None:
        try:
            child = self._server.fork()
        except Exception as error:  # noqa: BLE001  who waits is to hear of it, whatever it is
            with self._changed:
                self._starting -= 1
                self.failure = str(error)
                if self._waiting:
                    waiter = self._waiting.popleft()
                    waiter.error = error
                    waiter.woken.set()
            return
        with self._changed:
            self._starting -= 1
            self.failure = None
            self._started += 1
            # Children that were started together are not to end together.
            child.spare_runs = self._limits.recycle_runs + self._started % (self._limits.recycle_runs // 4 + 1)
            # Who was to build with it may have stopped waiting: for runs there may be one too many.
            full = len(self._busy) + len(self._idle) >= self._limits.max_children
            if not self._closed and not (full and not self._next_builds):
                self._hand_out(child)
                return
        child.close()

    def _end_idle(self) -> None:
        """End children that have been idle for long, or have died."""
        longest = time.monotonic() - self._limits.idle_seconds
        with self._changed:
            ended = [child for child in self._idle if child.idle_since < longest or not child.alive]
            self._idle = [child for child in self._idle if child not in ended]
        for child in ended:
            child.close()


def _closed() -> AdapterError:
    return AdapterError(ErrorCode.TRANSIENT, "the adapter was closed")
