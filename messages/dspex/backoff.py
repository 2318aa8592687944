"""How long to wait before the next attempt at what failed, or was lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


def doubled(first: float, last: float, failures: int) -> float:
    """The pause after so many failures before this one, in seconds: twice as long after each, up to the last."""
    return min(last, first * 2.0 ** min(failures, 20))


def spread(seconds: float) -> float:
    """Up to a half less, by chance: many do not come back at one moment."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311


class Backoff:
    """Pauses that are twice as long after each failure, up to the last; up to a half less by chance.

    What breaks as soon as it is there has not come back: the pauses begin anew once it has held for as long as the
    last one. For one thread.

    Args:
        first, last: the shortest and the longest pause, in seconds.
    """

    def __init__(self, first: float, last: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._last = last
        self._clock = clock
        self._since: float | None = None
        self.failures = 0
        """In a row."""

    def succeeded(self) -> None:
        """It is there, or still is."""
        if self._since is None:
            self._since = self._clock()

    def failed(self) -> float:
        """It is not, or not any more. Returns how many seconds to wait before the next attempt."""
        if self._since is not None and self._clock() - self._since >= self._last:
            self.failures = 0
        self._since = None
        pause = doubled(self._first, self._last, self.failures)
        self.failures += 1
        return spread(pause)
