"""The audit log of denials, `dspex.audit`: a line for each; for a flood, a few lines and a count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

logger = logging.getLogger("dspex.audit")

EPISODE_SECONDS = 60.0
LINES = 10
"""How many denials of one kind are logged in an episode; the others are counted."""
MAX_KINDS = 1_000
"""How many kinds are counted separately. As they come from outside, all further ones count as one kind."""


class Denial(NamedTuple):
    """A kind of denial: who was denied what, and why. There are few reasons."""

    action: str
    login: str
    tenant: str
    reason: str


_OTHERS = Denial("messages", "others", "-", "for various reasons")


@dataclass
class _Episode:
    began: float
    count: int = 0


class Audit:
    """Writes the audit log. Thread-safe.


    Args:
        clock: returns a time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._episodes: dict[Denial, _Episode] = {}

    def denied(self, denial: Denial, subject: str | None = None) -> None:
        """Log a denial.

        Args:
            subject: the id of the entity, if known.
        """
        self.end_episodes()
        with self._lock:
            if denial not in self._episodes and len(self._episodes) >= MAX_KINDS:
                denial = _OTHERS
            episode = self._episodes.setdefault(denial, _Episode(self._clock()))
            episode.count += 1
            told = episode.count <= LINES
        if told:
            logger.warning(
                "denied: %s by %s of tenant %s (%s) on %s",
                denial.action,
                denial.login,
                denial.tenant,
                denial.reason,
                subject or "-",
            )

    def end_episodes(self) -> None:
        """Log the number of denials that were not logged, for each episode that is over."""
        if not self._episodes:
            return
        now = self._clock()
        with self._lock:
            over = {d: e.count for d, e in self._episodes.items() if now - e.began >= EPISODE_SECONDS}
            for denial in over:
                del self._episodes[denial]
        for denial, count in over.items():
            if count > LINES:
                logger.warning(
                    "denied: %s by %s of tenant %s (%s), %d times more in %.0f s",
                    denial.action,
                    denial.login,
                    denial.tenant,
                    denial.reason,
                    count - LINES,
                    EPISODE_SECONDS,
                )


audit = Audit()
"""The audit log of this process."""
