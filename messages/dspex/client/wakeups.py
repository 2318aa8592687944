"""Hearing by Redis that executions have ended. A hint and no more: who waits reads the truth from the database.

Workers publish the ids of what has ended on one channel, those that gathered in one message, with spaces between. A
waiter subscribes before it looks, and looks again whenever it has subscribed anew: what it did not hear, it sees.
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
"""How long closing may take."""


def connect(url: str) -> Redis:
    """A client of Redis that connects at its first command, and fails rather than to wait or to try again by itself.

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
    except ValueError:  # the reason may quote parts of the password: it is not passed on
        raise SettingsError("the URL of Redis must be like redis://user:password@host:6379/0") from None


def message_of(ids: Iterable[UUID]) -> str:
    """The message on the channel."""
    return " ".join(map(str, ids))


class Wakeups:
    """Listens in one thread; connects again, 0.5 s to 30 s apart.

    Args:
        url: `redis://user:password@host:6379/0`.
        heard: called with the id of each execution that has ended.
        subscribed: called when it has subscribed, and may have missed some.

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
        """Listen, if it does not yet."""
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
                        # With a timeout of its own: socket_timeout would end a wait of redis-py 8 otherwise.
                        if self._take(channel.get_message(timeout=POLL_SECONDS)):
                            backoff.succeeded()
            except (redis.RedisError, OSError) as error:
                pause = backoff.failed()
                level = logging.WARNING if backoff.failures == 1 else logging.DEBUG
                logger.log(level, "Redis cannot be reached, executions are looked up from time to time: %s", error)
                self._closed.wait(pause)
        self._redis.close()

    def _take(self, message: dict[str, object] | None) -> bool:
        """Pass on what a message says; returns whether there was one."""
        if message is None:
            return False
        if message["type"] == "subscribe":
            self._subscribed()
        elif message["type"] == "message" and isinstance(text := message["data"], bytes):
            for part in text.split():
                try:
                    self._heard(UUID(part.decode()))
                except ValueError:
                    logger.debug("Something else is published on %s.", CHANNEL)
        return True
