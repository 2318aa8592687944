"""Group commit: the threads of a process submit their writes to a writer thread. They are called back, or wait.

The writer commits all writes that have gathered during its last commit in one transaction, with one statement for each
kind. A single write is committed at once; only posted writes, for which nobody waits, are delayed, and those whose
caller says how long they may wait for others. SQLite allows only one writer anyway.

While nothing else is written, a caller may commit its write in its own thread (`here`): to wake another one takes a
tenth of the time of a commit and more. What is submitted meanwhile gathers for the writer's thread.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine

from dspex.backoff import doubled, spread
from dspex.errors import DatabaseUnavailable, DspexError
from store.database.batch import ALONE
from store.database.engine import Plans
from store.database.failures import Cause, cause_of, describe, passing
from store.database.sessions import wait_for_no_lock
from workers.telemetry.episodes import Episodes

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Operation = Callable[[Connection, Sequence[Item]], Sequence[Result]]

Then = Callable[[Any, Exception | None], None]
"""Called with the result of a write, or with its error."""

MAX_BATCH = 500
POSTED_SECONDS = 0.05
"""Seconds that posted writes gather, so that each does not take a statement or a commit of its own."""
FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 5.0
POLL_SECONDS = 0.5
"""How often a writer that waits for another one checks whether it must close, in seconds."""
LATER_SECONDS = 0.1
MAX_LATER_SECONDS = 2.0
"""The longest pause before a failed write is tried again, while others go on. It doubles with each try."""


class WriterClosed(DspexError):
    """The process is shutting down: the write was not made."""

    code = "writer_closed"


class Refused(NamedTuple):
    """The error of one item of a batch, whose own writes were rolled back."""

    error: Exception


class _Write(NamedTuple):
    operation: Operation[Any, Any]
    item: Any
    then: Then
    until: float | None = None  # when its caller stops waiting; None: never


class _Later(NamedTuple):
    """Failed writes that are tried again separately, so that they block no others."""

    due: float
    tries: int
    batch: list[_Write]
    unfit: bool  # a privilege or a table is missing for all writes of a kind


class _Answer(Generic[Result]):
    """Waits for a write. A `Future` would take more than twice the time."""

    def __init__(self) -> None:
        self._result: Any = None
        self._error: Exception | None = None
        self._missing = threading.Lock()
        self._missing.acquire()

    def __call__(self, result: Any, error: Exception | None) -> None:
        self._result, self._error = result, error
        self._missing.release()

    def wait(self, timeout: float | None) -> Result:
        if not self._missing.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("the write was not made in time")
        if self._error is not None:
            raise self._error
        result: Result = self._result
        return result


class Writer:
    """Commits the writes of a process. `call`, `post` and `submit` are thread-safe.

    Args:
        name: the name of its thread.
        after: commits nothing while this other writer lacks a privilege or a table. Otherwise executions would be
    claimed, could not be ended, and would run again and again.
    """

    def __init__(self, engine: Engine, name: str = "writer", after: Writer | None = None) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None
        self._plans = Plans()
        self._waiting: deque[_Write] = deque()
        self._waiting_until = math.inf  # when to write them
        self._posted: deque[_Write] = deque()  # writes for which nobody waits
        self._posted_until = 0.0  # when to write them
        self._later: list[_Later] = []
        self._episodes = Episodes()
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._after = after
        self._fit = threading.Event()
        self._fit.set()
        self._writing = False  # a thread, the writer's or a caller's, has the connection
        self._held_up = False  # the writer's thread has something to do when that caller is done
        self._thread: threading.Thread | None = None

    @property
    def threads(self) -> list[threading.Thread]:
        """The thread, once it is started."""
        return [] if self._thread is None else [self._thread]

    def fit(self, seconds: float = 0.0) -> bool:
        """Whether the writer has the privileges and tables that it needs, as far as it knows. Waits up to `seconds`."""
        return self._fit.wait(seconds)

    @property
    def idle(self) -> bool:
        """Whether nothing is written now, as far as one may know without a lock."""
        return not (self._writing or self._waiting)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Commit pending writes for at most `timeout` seconds, and refuse further ones. May be called again."""
        with self._wake:
            self._closing.set()
            self._call_thread()
        if self._thread is not None:
            self._thread.join(timeout)

    def call(
        self,
        operation: Operation[Item, Result],
        item: Item,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> Result:
        """Write, and wait until it is committed.

        While the database is unreachable, the call keeps retrying, as a worker cannot work without it. It also retries
        while a table or a privilege is missing or a lock is held; other writes go on meanwhile.

        Args:
            operation: gets the connection and all items of a batch, and returns a result for each. It may run more than
                once, each time in a new transaction, and must not commit.
            timeout: seconds to wait. The write may still be made later.
            patience: seconds after which a blocked write is given up while others succeed.

        Raises:
            WriterClosed: the process is shutting down.
            TimeoutError: the write was not made in time.
            DatabaseUnavailable: the write was blocked for longer than `patience`.
            Exception: the error that the operation raised for this item.
        """
        answer = _Answer[Result]()
        self._put(_Write(operation, item, answer, None if patience is None else time.monotonic() + patience))
        return answer.wait(timeout)

    def post(self, operation: Operation[Item, Any], item: Item) -> None:
        """Write within `POSTED_SECONDS`, without waiting. For writes that may be lost.

        A failure is logged, and is retried only if the database is unavailable.

        Raises:
            WriterClosed: the process is shutting down.
        """
        with self._wake:
            self._require_open()
            if not self._posted:
                self._posted_until = time.monotonic() + POSTED_SECONDS
                self._call_thread()
            self._posted.append(_Write(operation, item, self._log_failure, until=0.0))

    def submit(
        self, operation: Operation[Item, Any], item: Item, then: Then, within: float = 0.0, *, here: bool = False
    ) -> None:
        """Write without waiting, and call `then` with the result.

        `then` is called in the writer's thread, or here, and must not block.

        Args:
            within: how many seconds the write may wait for others, so that it takes no transaction of its own.
            here: if nothing else is written now, write in this thread, once. What fails goes to the writer's thread.

        Raises:
            WriterClosed: the process is shutting down.
        """
        write = _Write(operation, item, then)
        if here and not within and self._begin_here():
            self._write_here(write)
        else:
            self._put(write, within)

    def _begin_here(self) -> bool:
        """Take the connection, if the writer is idle and has what it needs."""
        with self._wake:
            self._require_open()
            if self._writing or self._waiting or not self._fit.is_set():
                return False
            if self._after is not None and not self._after.fit():
                return False
            self._writing = True
            return True

    def _write_here(self, write: _Write) -> None:
        result, made = None, False
        try:
            [result] = self._transaction([write], careful=False)
            made = not isinstance(result, Refused)
        except Exception as error:  # noqa: BLE001 - the writer's thread tries again, and tells
            logger.debug("A write goes to the writer's thread: %s", describe(error))
        finally:
            with self._wake:
                self._writing = False
                if not made:
                    self._waiting.appendleft(write)
                    self._waiting_until = 0.0
                if self._held_up or not made:
                    self._held_up = False
                    self._wake.notify()
        if made:
            _tell(write, result, None)

    def _put(self, write: _Write, within: float = 0.0) -> None:
        until = time.monotonic() + within if within else 0.0
        with self._wake:
            self._require_open()
            self._waiting.append(write)
            if until < self._waiting_until:
                self._waiting_until = until
                self._call_thread()

    def _call_thread(self) -> None:
        """Have the writer's thread look what there is to do: now, or when the caller that writes is done."""
        self._held_up = self._writing
        if not self._writing:
            self._wake.notify()

    def _require_open(self) -> None:
        if self._closing.is_set():
            raise WriterClosed("the worker is shutting down")

    def _run(self) -> None:
        while work := self._next():
            while self._after is not None and not self._closing.is_set() and not self._after.fit(POLL_SECONDS):
                pass
            for batch, tries in work:
                self._commit(batch, tries)
            if not self._fit.is_set() and not any(later.unfit for later in self._later):
                logger.warning("The database can be written again.")
                self._fit.set()
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[tuple[list[_Write], int]]:
        """Wait for writes. Returns batches, and how often each was put off; an empty list if the writer is closed."""
        with self._wake:
            self._writing = self._held_up = False
            while True:
                while self._writing:  # a caller has the connection
                    self._held_up = True
                    self._wake.wait()
                closing, now = self._closing.is_set(), time.monotonic()
                pressing = self._waiting and (self._waiting_until <= now or closing)
                due = self._posted and (self._posted_until <= now or closing)
                again = [later for later in self._later if later.due <= now or closing]
                if pressing or due or again or closing:
                    break
                moments = [later.due for later in self._later]
                moments += [self._posted_until] if self._posted else []
                moments += [self._waiting_until] if self._waiting else []
                self._wake.wait(min(moments) - now if moments else None)
            self._writing = True
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            self._waiting_until = 0.0 if self._waiting else math.inf
            if due:
                batch += [self._posted.popleft() for _ in range(min(MAX_BATCH, len(self._posted)))]
        if again:
            self._later = [later for later in self._later if later not in again]
        return ([(batch, 0)] if batch else []) + [(later.batch, later.tries) for later in again]

    def _commit(self, batch: list[_Write], tries: int = 0, *, careful: bool = False) -> None:
        """Commit a batch and report the results. Blocked writes are put off separately.

        Args:
            tries: how often the batch was put off before.
            careful: do not wait for locks, as the batch has already waited.
        """
        failures = 0
        while True:
            try:
                results = self._transaction(batch, careful=careful or tries > 0)
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits
                cause = cause_of(error)
                if cause is Cause.AWAY:
                    failures += 1
                    if self._wait(failures, error):
                        continue
                    error = WriterClosed("the worker is shutting down and the database cannot be reached")
                elif len(parts := _parts(batch, cause)) > 1:
                    # One of them is poisonous or blocked. Split the batch, so that it fails alone.
                    for part in parts:
                        self._commit(part, tries, careful=True)
                    return
                self._failed(batch, error, tries)
                return
            for write, result in zip(batch, results, strict=True):
                if isinstance(result, Refused):
                    self._failed([write], result.error, tries, alone=True)
                else:
                    _tell(write, result, None)
            return

    def _failed(self, batch: list[_Write], error: Exception, tries: int, *, alone: bool = False) -> None:
        """Put off writes that are not at fault, and report the error to the others.

        Args:
            alone: True for a single action; False if no write of the kind is possible.
        """
        if not passing(error):
            for write in batch:
                _tell(write, None, error)
            return
        self._episodes.tell("Some writes are blocked, trying again", describe(error))
        now, again = time.monotonic(), list[_Write]()
        for write in batch:
            if self._closing.is_set():
                _tell(write, None, WriterClosed(f"the worker is shutting down; the database said: {describe(error)}"))
            elif write.until is not None and now >= write.until:
                _tell(write, None, DatabaseUnavailable(describe(error)))
            else:
                again.append(write)
        if again:
            pause = spread(doubled(LATER_SECONDS, MAX_LATER_SECONDS, tries))
            unfit = not alone and cause_of(error) is Cause.UNFIT
            self._later.append(_Later(now + pause, tries + 1, again, unfit))
            if unfit and self._fit.is_set():
                self._fit.clear()
                logger.error(
                    "The database lacks a privilege or a table. Meanwhile ends wait, and nothing more is claimed. "
                    "See docs/security.md, or run `dspex migrate`: %s",
                    describe(error),
                )

    def _transaction(self, batch: list[_Write], *, careful: bool) -> list[Any]:
        kinds: dict[Operation[Any, Any], list[int]] = {}
        for index, write in enumerate(batch):
            kinds.setdefault(write.operation, []).append(index)
        results: list[Any] = [None] * len(batch)
        with self._begin() as connection:
            connection.info[ALONE] = len(batch) == 1
            if careful:
                wait_for_no_lock(connection)
            for operation, indexes in kinds.items():
                answers = operation(connection, [batch[index].item for index in indexes])
                for index, answer in zip(indexes, answers, strict=True):
                    results[index] = answer
        return results

    @contextmanager
    def _begin(self) -> Generator[Connection]:
        """A transaction on a connection that this thread keeps, because the pool would ping the server each time."""
        connection, self._connection = self._connection, None
        if connection is None:
            connection = self._engine.connect()
            connection.detach()  # removes it from the pool
            self._plans = Plans()
        try:
            with connection.begin():
                self._plans.renew(connection)
                yield connection
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _log_failure(self, _result: Any, error: Exception | None) -> None:
        if error is not None:
            self._episodes.tell("A write that nobody waits for was not made", describe(error))

    def _wait(self, tries: int, error: Exception) -> bool:
        """Back off before the next try. Returns False if there must be none."""
        seconds = spread(doubled(FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, tries))
        self._episodes.tell("The database cannot be written, trying again", describe(error))
        return not self._closing.wait(seconds)


def _tell(write: _Write, result: Any, error: Exception | None) -> None:
    try:
        write.then(result, error)
    except Exception:
        logger.exception("A callback after a write failed.")


def _parts(batch: list[_Write], cause: Cause | None) -> list[list[_Write]]:
    """Split a failed batch for the next try."""
    if cause is not Cause.UNFIT:
        return [[write] for write in batch]
    # A missing table or privilege affects all writes of a kind.
    kinds: dict[Operation[Any, Any], list[_Write]] = {}
    for write in batch:
        kinds.setdefault(write.operation, []).append(write)
    return list(kinds.values())
