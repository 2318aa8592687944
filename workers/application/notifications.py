"""Notifies waiters that an execution has ended: in this process directly, and others by Redis, if it is set.

Notifications are hints: nothing depends on them, and a waiter that misses one looks the execution up
(`dspex.client.wakeups`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from dspex.backoff import Backoff
from dspex.client.wakeups import CHANNEL, FIRST_RETRY, LAST_RETRY, connect, message_of

logger = logging.getLogger(__name__)

MAX_GATHERED = 10_000
"""How many ids may wait for Redis; older ones are dropped."""
MAX_IDS = 1_000
"""The most ids in one message."""

Listener = Callable[[UUID], None]


class Notifications:
    """Sends notifications. Its publishing thread starts with the first ended execution. Thread-safe.

    Args:
        redis_url: None: notify only in this process.

    Raises:
        SettingsError: the URL is invalid.
    """

    def __init__(self, redis_url: str | None = None) -> None:
        self._redis = None if redis_url is None else connect(redis_url)
        self._listeners: tuple[Listener, ...] = ()
        self._gathered: deque[UUID] = deque(maxlen=MAX_GATHERED)
        self._filled = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the id of each execution that ends in this process. It must be short."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Listener) -> None:
        """Stop calling `listener`."""
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other != listener)

    def ended(self, execution_id: UUID) -> None:
        """Notify that the end of an execution was committed. Never blocks and never fails."""
        for listener in self._listeners:
            listener(execution_id)
        if self._redis is not None:
            self._gathered.append(execution_id)
            self._filled.set()
            if self._thread is None:
                self._start()

    def close(self) -> None:
        """Publish the remaining ids, and end the thread."""
        self._closed.set()
        self._filled.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._redis is not None:
            self._redis.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notifications", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        from redis import RedisError  # imported here, as it takes a tenth of a second, and most processes use no Redis

        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while not self._closed.is_set():
            self._filled.wait()
            self._filled.clear()
            try:
                self._publish()
                backoff.succeeded()
            except (RedisError, OSError) as error:
                pause = backoff.failed()
                level = logging.WARNING if backoff.failures == 1 else logging.DEBUG
                logger.log(level, "Redis cannot be reached; waiters look executions up at intervals: %s", error)
                self._gathered.clear()  # waiters look up by themselves when they subscribe again
                self._closed.wait(pause)

    def _publish(self) -> None:
        while self._gathered and self._redis is not None:
            ids: list[UUID] = []
            with suppress(IndexError):
                while len(ids) < MAX_IDS:
                    ids.append(self._gathered.popleft())
            self._redis.publish(CHANNEL, message_of(ids))
