"""Group commit: the threads of a process hand their writes to one thread, and wait.

It commits whatever has gathered while its last commit ran, in one transaction, with one statement for all writes of
a kind. A write that is alone is committed at once; only what nobody waits for may wait for others. On SQLite, one
writer is also what the engine wants.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine

from dspex.errors import DspexError
from store.engine import Plans
from store.failures import Cause, cause_of, describe, passing

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Operation = Callable[[Connection, Sequence[Item]], Sequence[Result]]

Then = Callable[[Any, Exception | None], None]
"""Told what a write came to: its result, or why it was not made."""

MAX_BATCH = 500
POSTED_SECONDS = 0.05
"""For what nobody waits for: else each would have a statement, or a commit, of its own beside what is waited for."""
MAX_BACKOFF_SECONDS = 5.0
POLL_SECONDS = 0.5
"""How often one that waits for another looks whether it is to close."""


class WriterClosed(DspexError):
    """The process is shutting down: the write was not made."""

    code = "writer_closed"


class _Write(NamedTuple):
    operation: Operation[Any, Any]
    item: Any
    then: Then


class _Answer(Generic[Result]):
    """Waits for a write. A future would do, at more than twice the price."""

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
    """Commits the writes of a process. `call` is for any thread.

    Args:
        name: of the thread.
        after: commits nothing while that one cannot write for lack of a right or a table: what is claimed then could
            not be ended, and would be run again and again.
    """

    def __init__(self, engine: Engine, name: str = "writer", after: Writer | None = None) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None
        self._plans = Plans()
        self._waiting: deque[_Write] = deque()
        self._posted: deque[_Write] = deque()  # that nobody waits for
        self._posted_until = 0.0  # when they are to be written
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._after = after
        self._fit = threading.Event()
        self._fit.set()
        self._thread: threading.Thread | None = None

    @property
    def threads(self) -> list[threading.Thread]:
        """The thread, once it was started."""
        return [] if self._thread is None else [self._thread]

    def fit(self, seconds: float = 0.0) -> bool:
        """Whether the database lets it write, as far as it knows; waits for that."""
        return self._fit.wait(seconds)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Commit what is waiting, for at most `timeout` seconds; refuse what comes later. Safe to call twice."""
        with self._wake:
            self._closing.set()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def call(self, operation: Operation[Item, Result], item: Item, timeout: float | None = None) -> Result:
        """Write, and wait until it is committed.

        While the database cannot be reached, the call waits and tries again: a worker has nothing better to do.

        Args:
            operation: takes the connection and all the items of a batch, and returns a result for each. It may run
                more than once, each time in a new transaction; it never commits.
            timeout: seconds to wait; the write may still be made later.

        Raises:
            WriterClosed: the process is shutting down.
            TimeoutError: it was not made in time.
            Exception: what the operation raised for this item.
        """
        answer = _Answer[Result]()
        self.submit(operation, item, answer)
        return answer.wait(timeout)

    def post(self, operation: Operation[Item, Any], item: Item) -> None:
        """Write in `POSTED_SECONDS`, and wait for nothing: for what is made up for if it is lost.

        What fails is logged.

        Raises:
            WriterClosed: the process is shutting down.
        """
        with self._wake:
            self._require_open()
            if not self._posted:
                self._posted_until = time.monotonic() + POSTED_SECONDS
                self._wake.notify()
            self._posted.append(_Write(operation, item, _log_failure))

    def submit(self, operation: Operation[Item, Any], item: Item, then: Then) -> None:
        """Write, and have `then` told what came of it.

        It is called in the writer's thread, and may wait for nothing.

        Raises:
            WriterClosed: the process is shutting down.
        """
        with self._wake:
            self._require_open()
            self._waiting.append(_Write(operation, item, then))
            self._wake.notify()

    def _require_open(self) -> None:
        if self._closing.is_set():
            raise WriterClosed("the worker is shutting down")

    def _run(self) -> None:
        while batch := self._next():
            while self._after is not None and not self._closing.is_set() and not self._after.fit(POLL_SECONDS):
                pass
            self._commit(batch)
        if self._connection is not None:
            self._connection.close()

    def _next(self) -> list[_Write]:
        """What is to be written now, once there is something; nothing: it is closed."""
        with self._wake:
            while True:
                closing, left = self._closing.is_set(), self._posted_until - time.monotonic()
                due = self._posted and (left <= 0 or closing)
                if self._waiting or due or closing:
                    break
                self._wake.wait(left if self._posted else None)
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            if due:
                batch += [self._posted.popleft() for _ in range(min(MAX_BATCH, len(self._posted)))]
            return batch

    def _commit(self, batch: list[_Write]) -> None:
        tries = 0
        while True:
            try:
                results = self._transaction(batch)
            except Exception as error:  # noqa: BLE001 - it goes to whoever waits
                if passing(error):
                    tries += 1
                    if self._wait(tries, error):
                        continue
                    error = WriterClosed("the worker is shutting down and the database cannot be reached")
                elif len(batch) > 1:
                    # One of them is poison: alone, it fails alone.
                    for write in batch:
                        self._commit([write])
                    return
                else:
                    self._is_fit()
                for write in batch:
                    _tell(write, None, error)
                return
            self._is_fit()
            for write, result in zip(batch, results, strict=True):
                _tell(write, result, None)
            return

    def _is_fit(self) -> None:
        if not self._fit.is_set():
            logger.warning("The database can be written again.")
            self._fit.set()

    def _transaction(self, batch: list[_Write]) -> list[Any]:
        kinds: dict[Operation[Any, Any], list[int]] = {}
        for index, write in enumerate(batch):
            kinds.setdefault(write.operation, []).append(index)
        results: list[Any] = [None] * len(batch)
        with self._begin() as connection:
            for operation, indexes in kinds.items():
                answers = operation(connection, [batch[index].item for index in indexes])
                for index, answer in zip(indexes, answers, strict=True):
                    results[index] = answer
        return results

    @contextmanager
    def _begin(self) -> Generator[Connection]:
        """A transaction on a connection that this thread keeps: the pool asks first, each time, if the server lives."""
        connection, self._connection = self._connection, None
        if connection is None:
            connection = self._engine.connect()
            connection.detach()  # it is none of those that the pool has to give
            self._plans = Plans()
        try:
            with connection.begin():
                self._plans.renew(connection)
                yield connection
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _wait(self, tries: int, error: Exception) -> bool:
        """Back off before the next try. Returns whether there is to be one."""
        seconds = min(MAX_BACKOFF_SECONDS, 0.05 * 2 ** min(tries, 10)) * random.uniform(0.5, 1)  # noqa: S311
        if cause_of(error) is Cause.UNFIT:
            if self._fit.is_set():
                self._fit.clear()
                logger.error(
                    "The database cannot be written until a right or a table that is missing is there; what has run "
                    "waits, and nothing more is claimed. See docs/security.md, or `dspex migrate`: %s",
                    describe(error),
                )
        elif tries % 10 == 1:
            logger.warning("The database cannot be written, trying again: %s", describe(error))
        return not self._closing.wait(seconds)


def _tell(write: _Write, result: Any, error: Exception | None) -> None:
    try:
        write.then(result, error)
    except Exception:
        logger.exception("What follows a write failed.")


def _log_failure(_result: Any, error: Exception | None) -> None:
    if error is not None:
        logger.warning("A write that nobody waits for was not made: %s", error)
