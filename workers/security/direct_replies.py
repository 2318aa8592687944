"""Whether RabbitMQ can read the name of who waits by direct reply-to.

Such a name has in it which process of which node waits. One that was made up ends the connection that publishes to it
(541, seen on 3.10.8): everybody's answers and events go over that one. So it is asked for on a connection of its own
before anything is sent there, and remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dspex.lru import Lru
from workers.security.reply_queues import direct

KEPT: Final = 1_000
"""Names that are remembered: those who wait on one channel have one in common."""


class DirectReplies:
    """Thread-safe.

    Args:
        ask: whether the broker can read a name. Raises BrokerUnavailable where it cannot be asked.
    """

    def __init__(self, ask: Callable[[str], bool] = lambda _queue: True) -> None:
        self._ask = ask
        self._readable: Lru[str, bool] = Lru(KEPT)

    def is_checked(self, queue: str | None) -> bool:
        """Whether an answer may be sent there without asking first."""
        return queue is None or not direct(queue) or self._readable.get(_channel(queue)) is True

    def readable(self, queue: str) -> bool:
        """Whether an answer may be sent there.

        Raises:
            BrokerUnavailable: it cannot be asked.
        """
        if self.is_checked(queue):
            return True
        found = self._readable.get(_channel(queue))
        if found is None:
            found = self._ask(queue)
            self._readable.put(_channel(queue), found, 1)
        return found


def _channel(queue: str) -> str:
    """What a name says of where somebody waits: all but the key, which RabbitMQ only compares."""
    return queue.rpartition(".")[0]
