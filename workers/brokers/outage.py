"""Outages of a server: when to reconnect, and which events to log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dspex.backoff import Backoff

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
"""The longest pause between attempts, in seconds (`Backoff`)."""


class Outage:
    """The outages of one connection. Not thread-safe.

    Logs each reason once per outage, and the end: a broker that is down for a night leaves two lines.

    Args:
        what: the name in the log: `Queue dspex.programs`.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._told: set[str] = set()
        self._since = 0.0
        self._backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, clock=clock)

    def begin(self, reason: str) -> float:
        """Note a failure. Returns how many seconds to wait before the next attempt."""
        if not self._told:
            self._since = self._clock()
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("%s is away, trying again. %s", self._what, reason)
        return self._backoff.failed()

    def end(self) -> None:
        """Note that the connection is there."""
        self._backoff.succeeded()
        if self._told:
            logger.info("%s is back after %.1f s.", self._what, self._clock() - self._since)
        self._told.clear()
