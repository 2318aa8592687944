"""Notifications by Redis that executions have ended. They are hints: a waiter then looks the execution up.

Workers publish the ids of ended executions to one channel; a message has one or more ids, separated by spaces. A waiter
subscribes before it looks up, and looks up again after each new subscription, so it misses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from dspex.backoff import Backoff
from dspex.errors import SettingsError

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

CHANNEL = "dspex.executions.ended"
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
POLL_SECONDS = 0.5
"""Seconds to wait for a message; closing may take as long."""


def connect(url: str) -> Redis:
    """A Redis client that connects at its first command, and fails at once instead of retrying.

    Raises:
        SettingsError: the URL cannot be read, or redis is not installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise SettingsError("redis is not installed: pip install dspex[redis]") from None
    try:
        return redis.Redis.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, health_check_interval=10, retry=Retry(NoBackoff(), 0)
        )
    except ValueError:  # not passed on: the reason may quote parts of the password
        raise SettingsError("the URL of Redis must be like redis://user:password@host:6379/0") from None


def message_of(ids: Iterable[UUID]) -> str:
    """The message for the channel."""
    return " ".join(map(str, ids))


class Wakeups:
    """Listens for notifications in one thread. Reconnects with pauses of 0.5 s to 30 s.

    Args:
        url: `redis://user:password@host:6379/0`.
        heard: called with the id of each execution that is said to have ended.
        subscribed: called after each subscription, as notifications before it were missed.

    Raises:
        SettingsError: the URL cannot be read, or redis is not installed.
    """

    def __init__(self, url: str, heard: Callable[[UUID], None], subscribed: Callable[[], None]) -> None:
        self._redis = connect(url)
        self._heard = heard
        self._subscribed = subscribed
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening, unless it has begun."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="dspex-wakeups", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        import redis

        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while not self._closed.is_set():
            try:
                with self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(CHANNEL)
                    while not self._closed.is_set():
                        # With an explicit timeout: otherwise redis-py 8 ends the wait by socket_timeout.
                        if self._take(channel.get_message(timeout=POLL_SECONDS)):
                            backoff.succeeded()
            except (redis.RedisError, OSError) as error:
                pause = backoff.failed()
                level = logging.WARNING if backoff.failures == 1 else logging.DEBUG
                logger.log(level, "Redis cannot be reached; executions are looked up at intervals: %s", error)
                self._closed.wait(pause)
        self._redis.close()

    def _take(self, message: dict[str, object] | None) -> bool:
        """Report the ids in a message. Returns whether there was a message."""
        if message is None:
            return False
        if message["type"] == "subscribe":
            self._subscribed()
        elif message["type"] == "message" and isinstance(text := message["data"], bytes):
            for part in text.split():
                try:
                    self._heard(UUID(part.decode()))
                except ValueError:
                    logger.debug("A message on %s is not a list of ids: ignored.", CHANNEL)
        return True
