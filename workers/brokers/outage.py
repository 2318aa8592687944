"""While a server is away: when to try again, and what is worth a line in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dspex.backoff import Backoff

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
"""Seconds between tries (`Backoff`)."""


class Outage:
    """Of one thing that is connected to, or is not. For one thread.

    Each reason is told once in an outage, and its end: a broker that is down for a night leaves two lines.

    Args:
        what: what is to be had: `Queue dspex.programs`.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._told: set[str] = set()
        self._since = 0.0
        self._backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, clock=clock)

    def begin(self, reason: str) -> float:
        """It was lost, or could not be had again. Returns how many seconds to wait before the next try."""
        if not self._told:
            self._since = self._clock()
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("%s is away, trying again. %s", self._what, reason)
        return self._backoff.failed()

    def end(self) -> None:
        """It is there."""
        self._backoff.succeeded()
        if self._told:
            logger.info("%s is back after %.1f s.", self._what, self._clock() - self._since)
        self._told.clear()
