"""Back-off: how long to wait before the next attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


def doubled(first: float, last: float, failures: int) -> float:
    """The pause before the next attempt, in seconds: `first` doubled once for each earlier failure, at most `last`."""
    return min(last, first * 2.0 ** min(failures, 20))


def spread(seconds: float) -> float:
    """The pause reduced by up to a half at random, so that many waiters do not come back at the same moment."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311


class Backoff:
    """Pauses that double after each failure, up to `last`, with jitter of up to a half less.

    A connection that breaks at once has not come back. So the pauses start over only after it has held for as long as
    the last pause. Not thread-safe.

    Args:
        first, last: the shortest and the longest pause, in seconds.
    """

    def __init__(self, first: float, last: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first
        self._last = last
        self._clock = clock
        self._since: float | None = None
        self.failures = 0
        """Consecutive failures."""

    def succeeded(self) -> None:
        """Note a success, such as a connection that was made or still holds."""
        if self._since is None:
            self._since = self._clock()

    def failed(self) -> float:
        """Note a failure. Returns how many seconds to wait before the next attempt."""
        if self._since is not None and self._clock() - self._since >= self._last:
            self.failures = 0
        self._since = None
        pause = doubled(self._first, self._last, self.failures)
        self.failures += 1
        return spread(pause)
