"""The executions that this process runs: it renews their leases, and can cancel them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from adapters.fallback import LoadedProgram
from store.database.identity import Identity

PATIENCE_SECONDS = 30.0


class Run(Protocol):
    """The part of an attempt that is needed here."""

    @property
    def execution(self) -> Identity:
        """The execution of the attempt."""
        ...

    @property
    def run_id(self) -> str:
        """The id of the run for its adapter."""
        ...

    @property
    def overdue(self) -> bool:
        """Whether it runs although its time is over."""
        ...


R = TypeVar("R", bound=Run)


class InFlight(Generic[R]):
    """The attempts in flight. An execution may have two, if it was rescued from one thread and claimed by another."""

    def __init__(self) -> None:
        self._programs: dict[R, LoadedProgram | None] = {}
        self._cancelled: set[R] = set()
        self.when_cancelled: Callable[[], None] = lambda: None
        """Called when executions were cancelled, so that those that no thread has begun can be ended."""

    def __len__(self) -> int:
        return len(self._programs)

    @property
    def executions(self) -> set[Identity]:
        """The executions in flight."""
        return {attempt.execution for attempt in list(self._programs)}

    @property
    def overdue(self) -> list[R]:
        """The attempts that run although their time is over."""
        return [attempt for attempt in list(self._programs) if attempt.overdue]

    def begin(self, attempt: R) -> None:
        """Note that an execution was claimed."""
        self._programs[attempt] = None

    def hand_over(self, attempt: R, program: LoadedProgram) -> None:
        """Note that the attempt is passed to its adapter."""
        self._programs[attempt] = program

    def end(self, attempt: R) -> None:
        """Note that the attempt has ended."""
        self._programs.pop(attempt, None)
        self._cancelled.discard(attempt)

    def cancel(self, which: Collection[Identity]) -> None:
        """Ask the adapters to stop these executions. If one cannot be stopped, its result will be discarded."""
        for attempt, program in list(self._programs.items()):
            if attempt.execution in which and attempt not in self._cancelled:
                self._cancelled.add(attempt)
                if program is not None:
                    program.cancel(attempt.run_id)
        if which:
            self.when_cancelled()

    def is_cancelled(self, attempt: R) -> bool:
        """Whether the attempt was cancelled."""
        return attempt in self._cancelled


class Isolation:
    """Lets executions run together, but one that may crash its process alone.

    Otherwise an execution that crashes its process would also spend an attempt of every other one in it. An execution
    that waits here has no claim, and so no attempt to lose. After a limit it runs anyway, so that a long execution
    cannot block a process.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        self._waiting: set[Identity] = set()
        self.when_wanted: Callable[[], None] = lambda: None
        """Called when an execution must run alone, so that claims that are not begun can be given back."""
        self.when_over: Callable[[], None] = lambda: None
        """Called when one has run alone, so that others can be claimed."""

    @property
    def wanted(self) -> bool:
        """Whether an execution runs alone, or waits to."""
        return bool(self._alone or self._waiting)

    def enter(self, number: int = 1) -> bool:
        """Have so many executions join those that run together, until `leave`. Returns False if they had to wait."""
        with self._changed:
            if self.wanted:
                return False
            self._inside += number
            return True

    def leave(self, number: int = 1) -> None:
        """Note that some of the executions that run together have ended."""
        with self._changed:
            self._inside -= number
            self._changed.notify_all()

    @contextmanager
    def alone(self, execution: Identity) -> Generator[bool]:
        """Claim and run after all others have ended, while new ones wait. Yields False if it already waits here."""
        if not self._enter_alone(execution):
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._alone -= 1
            self.leave()
            self.when_over()

    def _enter_alone(self, execution: Identity) -> bool:
        with self._changed:
            if execution in self._waiting:
                return False
            self._waiting.add(execution)
        self.when_wanted()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, self._patience)
            self._waiting.remove(execution)
            self._inside += 1
            self._alone += 1
            return True


class Unwritten:
    """Counts the ends that are not written yet, and blocks while there are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Count one more; wait while the limit is reached."""
        with self._changed:
            if self._count >= self._limit:
                self._changed.wait_for(lambda: self._count < self._limit)
            self._count += 1

    def leave(self) -> None:
        """Count one less: it is written, or will never be."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all are written. Returns False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)
