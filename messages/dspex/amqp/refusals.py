"""Fails messages that the broker refuses again and again without sending them: each would close the channel."""

from __future__ import annotations

from collections import deque
from typing import Final

from dspex.amqp.errors import Refused
from dspex.errors import NotDeclared, PublishError

ENOUGH: Final = 3
WITHIN_SECONDS: Final = 1.0
"""After so many refusals in so many seconds, further messages of the kind fail at once for a while, unsent."""
MISSING_SECONDS: Final = 1.0
DENIED_SECONDS: Final = 10.0
MOST: Final = 100
"""How many kinds are remembered at most, as there may be many routing keys."""


class Refusals:
    """The refusals of one publisher. Times are in seconds of `time.monotonic`. Not thread-safe."""

    def __init__(self) -> None:
        self._times: dict[Refused, deque[float]] = {}
        self._until: dict[Refused, tuple[float, type[PublishError], str]] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def note(self, refused: Refused, error: type[PublishError], text: str, now: float) -> None:
        """Note that the broker has refused a message of this kind."""
        if refused not in self._times and len(self._times) >= MOST:
            self._times.clear()
        times = self._times.setdefault(refused, deque(maxlen=ENOUGH))
        times.append(now)
        if len(times) == ENOUGH and now - times[0] <= WITHIN_SECONDS:
            seconds = MISSING_SECONDS if error is NotDeclared else DENIED_SECONDS
            if len(self._until) >= MOST:
                self._until.clear()
            self._until[refused] = (now + seconds, error, text)
            times.clear()

    def find(self, exchange: str, routing_key: str, now: float) -> tuple[type[PublishError], str] | None:
        """The error class and text with which a message fails now; None if it may be sent."""
        for refused, (until, error, text) in list(self._until.items()):
            if until <= now:
                del self._until[refused]
            elif refused.covers(exchange, routing_key):
                return error, text
        return None
