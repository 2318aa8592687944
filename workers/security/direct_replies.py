"""Checks that RabbitMQ can parse a name of direct reply-to.

Such a name encodes a process and a node. Publishing to a forged one ends the connection (541, seen on 3.10.8), which
all answers and events share. So each name is first checked on a separate connection, and the result is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dspex.lru import Lru
from workers.security.reply_queues import direct

KEPT: Final = 1_000
"""How many names are remembered. Clients on one channel share a name."""


class DirectReplies:
    """Checks and remembers names. Thread-safe.

    Args:
        ask: returns whether the broker can parse a name. Raises BrokerUnavailable if it cannot be reached.
    """

    def __init__(self, ask: Callable[[str], bool] = lambda _queue: True) -> None:
        self._ask = ask
        self._readable: Lru[str, bool] = Lru(KEPT)

    def is_checked(self, queue: str | None) -> bool:
        """Whether an answer may be sent there without a check."""
        return queue is None or not direct(queue) or self._readable.get(_channel(queue)) is True

    def readable(self, queue: str) -> bool:
        """Whether an answer may be sent there.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        if self.is_checked(queue):
            return True
        found = self._readable.get(_channel(queue))
        if found is None:
            found = self._ask(queue)
            self._readable.put(_channel(queue), found, 1)
        return found


def _channel(queue: str) -> str:
    """The part of a name that encodes the place: all but the key, which RabbitMQ only compares."""
    return queue.rpartition(".")[0]
