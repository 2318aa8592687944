"""The pool of children: started on demand up to a limit, and given out in the order of the requests."""

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
"""Threads that start children. On a busy machine, they mostly wait for the new process to get a CPU."""

BUILDING: Final = 2
"""Extra children for building programs. Builds have priority, and do not wait for runs."""


class _Waiter:
    """A thread that waits for a child. `woken` is set when it gets one or an error, or when its run is cancelled."""

    def __init__(self, builds: bool) -> None:
        self.builds = builds
        self.woken = threading.Event()
        self.child: Child | None = None
        self.error: Exception | None = None


class Pool:
    """Gives out children, and ends those that are worn out, broken, or idle for long.

    The pool's own threads start children, so that a run that times out need not wait for the start; the next run gets
    that child.

    Args:
        server: starts the children.

    Attributes:
        failure: why the last start of a child failed; None if it succeeded.
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
        """A child for the time of the context; one that has built this program, if there is one.

        Args:
            deadline: how long to wait for a child, by the monotonic clock.
            run: its cancellation ends the wait.
            builds: True if the child is for a build, and not for a run.

        Raises:
            AdapterError: `timeout` or `cancelled` during the wait; or no child could be started.
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
        """End every child, and start no more. May be called again."""
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
            child.kill()  # its thread notices this and closes it
        for child in idle:
            child.end()
            child.close()
        for thread in self._starters:
            thread.join()

    def _take(self, backend_id: str) -> Child | None:
        """An idle child, or None."""
        with self._changed:
            while self._idle and not self._waiting:
                # Prefer one that has built the program, else the one used last, whose memory is warm.
                index = next((i for i in reversed(range(len(self._idle))) if backend_id in self._idle[i].programs), -1)
                child = self._idle.pop(index)
                if child.alive:
                    self._busy.add(child)
                    return child
                child.close()
            return None

    def _wait(self, deadline: float | None, run: Run, builds: bool) -> Child:
        """Wait for a child that becomes free or is started."""
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
        """Give a child to the thread that has waited longest, or make it idle."""
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
                if not self._short and not self._closed:  # if it was closed meanwhile, nobody would notify again
                    self._changed.wait(self._limits.idle_seconds / 4)
                short = self._short
                self._starting += short
            if short:
                self._start()
            self._end_idle()

    @property
    def _next_builds(self) -> bool:
        """Whether the first thread that waits wants to build."""
        return bool(self._waiting) and self._waiting[0].builds

    @property
    def _short(self) -> bool:
        """Whether another child must be started."""
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
            # Spread the ends of children that were started together.
            child.spare_runs = self._limits.recycle_runs + self._started % (self._limits.recycle_runs // 4 + 1)
            # The build that it was for may have stopped waiting, and for runs it may be one too many.
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
