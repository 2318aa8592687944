"""While a server is away: when to try again, and what is worth a line in the log."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
"""Seconds between tries: twice as long after each, up to the last, and up to a half less by chance."""


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
        self._up_since: float | None = None
        self._tries = 0

    def begin(self, reason: str) -> float:
        """It was lost, or could not be had again. Returns how many seconds to wait before the next try."""
        now = self._clock()
        if self._up_since is not None:
            # What breaks as soon as it is there has not come back.
            self._tries = 0 if now - self._up_since >= LAST_PAUSE else self._tries
            self._up_since = None
        if not self._told:
            self._since = now
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("%s is away, trying again. %s", self._what, reason)
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._tries, 16))
        self._tries += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311  # so that a fleet does not come back at one moment

    def end(self) -> None:
        """It is there."""
        self._up_since = self._clock()
        if self._told:
            logger.info("%s is back after %.1f s.", self._what, self._up_since - self._since)
        self._told.clear()
