"""The pool of children: started on demand up to a limit, and given out in the order of the requests."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from adapters.port import AdapterError
from adapters.python_port.children import Child
from adapters.python_port.limits import Limits
from adapters.runs import Run
from dspex import ErrorCode

STARTERS: Final = 4
"""Threads that start children. On a busy machine, they mostly wait for the new process to get a CPU."""

BUILDING: Final = 2
"""Extra children for building programs. Builds have priority, and do not wait for runs."""


class _Waiter:
    """A thread that waits for a child. `woken` is set when it gets one or an error, or when its run is cancelled."""

    def __init__(self, environment: str | None, builds: bool) -> None:
        self.environment = environment
        self.builds = builds
        self.woken = threading.Event()
        self.child: Child | None = None
        self.error: Exception | None = None


class Starts(Protocol):
    """What starts children."""

    def fork(self, environment: str | None) -> Child:
        """See `adapters.python_port.servers.Servers`."""
        ...


class Pool:
    """Gives out children, and ends those that are worn out, broken, or idle for long.

    The children of all environments share one limit. Where it is reached, an idle one of another environment ends.

    The pool's own threads start children, so that a run that times out need not wait for the start; the next run gets
    that child.

    Args:
        servers: start the children.
    """

    def __init__(self, limits: Limits, servers: Starts) -> None:
        self._failures: dict[str | None, str] = {}
        self._limits = limits
        self._servers = servers
        self._changed = threading.Condition()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._waiting: deque[_Waiter] = deque()
        self._started = 0
        self._closed = False
        self._starting: Counter[str | None] = Counter()
        self._up: set[str | None] = {None}
        """Environments whose last child has started. In others, which may never start, one child is tried at a time."""
        self._starters: list[threading.Thread] = []

    @contextmanager
    def child(
        self,
        backend_id: str,
        deadline: float | None,
        run: Run,
        environment: str | None = None,
        *,
        builds: bool = False,
    ) -> Generator[Child, None, None]:
        """A child for the time of the context; one that has built this program, if there is one.

        Args:
            deadline: how long to wait for a child, by the monotonic clock.
            run: its cancellation ends the wait.
            environment: where the child runs; None: in the worker's own.
            builds: True if the child is for a build, and not for a run.

        Raises:
            AdapterError: `timeout` or `cancelled` during the wait; or no child could be started.
        """
        child = self._given(backend_id, deadline, run, environment, builds)
        try:
            child.prepare()
            yield child
        finally:
            self._give_back(child)

    @property
    def failure(self) -> str | None:
        """Why the last start of a child failed, in an environment where it did."""
        with self._changed:
            return next(iter(self._failures.values()), None)

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

    def _take(self, backend_id: str, environment: str | None) -> Child | None:
        """An idle child, or None."""
        if any(waiter.environment == environment for waiter in self._waiting):
            return None
        # Prefer one that has built the program, else the one used last, whose memory is warm.
        found = [child for child in reversed(self._idle) if child.environment == environment]
        for child in sorted(found, key=lambda child: backend_id not in child.programs):
            self._idle.remove(child)
            if child.alive:
                self._busy.add(child)
                return child
            child.close()
        return None

    def _given(self, backend_id: str, deadline: float | None, run: Run, environment: str | None, builds: bool) -> Child:
        """An idle child; or one that becomes free or is started."""
        waiter = _Waiter(environment, builds)
        with self._changed:
            idle = self._take(backend_id, environment)
            if idle is not None:
                return idle
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
            spare = self._there >= self._limits.max_children
            # There is room for one more only: for whoever has waited longest.
            spare = spare or (self._there + 1 >= self._limits.max_children and self._awaits_another(child))
            kept = not (child.broken or worn or spare or self._closed)
            if kept:
                self._hand_out(child)
            self._changed.notify_all()
        if not kept:
            child.close()

    @property
    def _there(self) -> int:
        """How many children there are, or will be soon."""
        return len(self._busy) + len(self._idle) + self._starting.total()

    def _awaits_another(self, child: Child) -> bool:
        """Whether the thread that has waited longest needs a child of another environment, and none is idle to end."""
        first = next(self._without(), None)
        return first is not None and first.environment != child.environment and not self._idle

    def _first(self, environment: str | None) -> _Waiter | None:
        """The thread that has waited longest for a child of an environment. It waits no more."""
        waiter = next((waiter for waiter in self._waiting if waiter.environment == environment), None)
        if waiter is not None:
            self._waiting.remove(waiter)
        return waiter

    def _hand_out(self, child: Child) -> None:
        """Give a child to the thread that has waited longest for one of its environment, or make it idle."""
        waiter = self._first(child.environment)
        if waiter is not None:
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
                waiter = self._next()
                if waiter is None and not self._closed:  # if it was closed meanwhile, nobody would notify again
                    self._changed.wait(self._limits.idle_seconds / 4)
                    waiter = self._next()
                ended = None if waiter is None else self._in_the_way()
                if waiter is not None:
                    self._starting[waiter.environment] += 1
            if ended is not None:
                ended.close()
            if waiter is not None:
                self._start(waiter.environment)
            self._end_idle()

    def _next(self) -> _Waiter | None:
        """The first thread for which a child must be started, and may be."""
        return None if self._closed else next(filter(self._has_room, self._without()), None)

    def _without(self) -> Iterator[_Waiter]:
        """The threads that wait, but for those for which children are started now."""
        needed = Counter[str | None]()
        for waiter in self._waiting:
            environment = waiter.environment
            needed[environment] += 1
            starting = self._starting[environment]
            if needed[environment] > starting and (environment in self._up or not starting):
                yield waiter

    def _has_room(self, waiter: _Waiter) -> bool:
        """Whether a child may be started for this thread: in the place of an idle one, too."""
        most = self._limits.max_children + (BUILDING if waiter.builds else 0)
        return self._there < most or bool(self._idle)

    def _in_the_way(self) -> Child | None:
        """The child that has been idle longest, if there is no room for another. It is idle no more."""
        if self._there < self._limits.max_children or not self._idle:
            return None
        return self._idle.pop(0)

    def _start(self, environment: str | None) -> None:
        try:
            child = self._servers.fork(environment)
        except Exception as error:  # noqa: BLE001  who waits is to hear of it, whatever it is
            with self._changed:
                self._starting[environment] -= 1
                if environment is not None:
                    self._up.discard(environment)
                self._failures[environment] = str(error)
                waiter = self._first(environment)
                if waiter is not None:
                    waiter.error = error
                    waiter.woken.set()
                self._changed.notify_all()
            return
        with self._changed:
            self._starting[environment] -= 1
            self._up.add(environment)
            self._failures.pop(environment, None)
            self._started += 1
            self._changed.notify_all()
            # Spread the ends of children that were started together.
            child.spare_runs = self._limits.recycle_runs + self._started % (self._limits.recycle_runs // 4 + 1)
            # The build that it was for may have stopped waiting, and for runs it may be one too many.
            full = len(self._busy) + len(self._idle) >= self._limits.max_children
            if not self._closed and not (full and not self._builds_next(environment)):
                self._hand_out(child)
                return
        child.close()

    def _builds_next(self, environment: str | None) -> bool:
        """Whether the first thread that waits for a child of this environment wants to build."""
        return next((waiter.builds for waiter in self._waiting if waiter.environment == environment), False)

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
