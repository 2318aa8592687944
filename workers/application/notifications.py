"""Telling whoever waits that an execution has ended: in this process at once, and by Redis where it is set.

A hint and no more: nothing waits for it, and what is lost with Redis is found by looking (`dspex.client.wakeups`).
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
"""Ids that wait for Redis; older ones are dropped."""
MAX_IDS = 1_000
"""In one message."""

Listener = Callable[[UUID], None]


class Notifications:
    """Thread-safe. The thread that publishes starts with the first execution that ends.

    Args:
        redis_url: None: only in this process.

    Raises:
        SettingsError: the URL cannot be read.
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
        """Have `listener` called with the id of each execution that ends in this process. It must be short."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Listener) -> None:
        """Do not call it any more."""
        with self._lock:
            self._listeners = tuple(other for other in self._listeners if other != listener)

    def ended(self, execution_id: UUID) -> None:
        """An execution has ended, and that is committed. Never blocks, never fails."""
        for listener in self._listeners:
            listener(execution_id)
        if self._redis is not None:
            self._gathered.append(execution_id)
            self._filled.set()
            if self._thread is None:
                self._start()

    def close(self) -> None:
        """Publish what is gathered, and end the thread."""
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
        from redis import RedisError  # it takes a tenth of a second to load, and most have none

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
                logger.log(level, "Redis cannot be reached, whoever waits looks from time to time: %s", error)
                self._gathered.clear()  # who subscribes when it is back looks by itself
                self._closed.wait(pause)

    def _publish(self) -> None:
        while self._gathered and self._redis is not None:
            ids: list[UUID] = []
            with suppress(IndexError):
                while len(ids) < MAX_IDS:
                    ids.append(self._gathered.popleft())
            self._redis.publish(CHANNEL, message_of(ids))
