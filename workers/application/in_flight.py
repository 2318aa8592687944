"""What the threads of this process are running now: whose leases it renews, and what it can be asked to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from adapters.fallback import LoadedProgram
from store.database.identity import Identity

PATIENCE_SECONDS = 30.0


class Run(Protocol):
    """What is known here of an attempt."""

    @property
    def execution(self) -> Identity:
        """The execution that it is one of."""
        ...

    @property
    def run_id(self) -> str:
        """What its adapter knows it by."""
        ...

    @property
    def overdue(self) -> bool:
        """Whether it runs on beyond its time."""
        ...


R = TypeVar("R", bound=Run)


class InFlight(Generic[R]):
    """By attempt: the same execution may be here twice, where it was rescued from one thread and claimed by another."""

    def __init__(self) -> None:
        self._programs: dict[R, LoadedProgram | None] = {}
        self._cancelled: set[R] = set()
        self.when_cancelled: Callable[[], None] = lambda: None
        """Called when some were asked to stop: those that no thread has begun yet may be ended."""

    def __bool__(self) -> bool:
        return bool(self._programs)

    @property
    def executions(self) -> set[Identity]:
        """The executions."""
        return {attempt.execution for attempt in list(self._programs)}

    @property
    def overdue(self) -> list[R]:
        """Those that run on beyond their time."""
        return [attempt for attempt in list(self._programs) if attempt.overdue]

    def begin(self, attempt: R) -> None:
        """An execution was claimed."""
        self._programs[attempt] = None

    def hand_over(self, attempt: R, program: LoadedProgram) -> None:
        """It is handed to its adapter."""
        self._programs[attempt] = program

    def end(self, attempt: R) -> None:
        """It has ended."""
        self._programs.pop(attempt, None)
        self._cancelled.discard(attempt)

    def cancel(self, which: Collection[Identity]) -> None:
        """Tell the adapters to stop these. Of what they cannot stop, the result is discarded when it comes."""
        for attempt, program in list(self._programs.items()):
            if attempt.execution in which and attempt not in self._cancelled:
                self._cancelled.add(attempt)
                if program is not None:
                    program.cancel(attempt.run_id)
        if which:
            self.when_cancelled()

    def is_cancelled(self, attempt: R) -> bool:
        """Whether it was asked to stop."""
        return attempt in self._cancelled


class Isolation:
    """Lets executions run together, and one alone: the one that may take its process with it.

    Without it, one that ends its process would each time spend an attempt of every other that runs there. Whoever waits
    holds no claim, and so has no attempt to lose. What waits too long runs anyway: a long one that is under way must
    not stop a process.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        self._waiting: set[Identity] = set()
        self.when_wanted: Callable[[], None] = lambda: None
        """Called when one is to run alone: what has been claimed for later may be given back."""

    @property
    def wanted(self) -> bool:
        """Whether one runs alone, or waits for it."""
        return bool(self._alone or self._waiting)

    @contextmanager
    def together(self) -> Generator[None]:
        """Claim and run beside others."""
        with self._changed:
            if self._alone or self._waiting:
                self._changed.wait_for(lambda: not self._alone and not self._waiting, self._patience)
            self._inside += 1
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> bool:
        """Be beside others until `leave`, if that needs no waiting. Returns whether it is so."""
        with self._changed:
            if self.wanted:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """One that was beside others has ended."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    @contextmanager
    def alone(self, execution: Identity) -> Generator[bool]:
        """Claim and run when all others have ended, and keep new ones waiting; False: it waits here already."""
        if not self._enter_alone(execution):
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._alone -= 1
            self.leave()

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
    """Counts the ends that are on their way into the database, and holds up those that are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Count one more, once there is room."""
        with self._changed:
            if self._count >= self._limit:
                self._changed.wait_for(lambda: self._count < self._limit)
            self._count += 1

    def leave(self) -> None:
        """It is written, or will not be."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until all are written. Returns whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)
