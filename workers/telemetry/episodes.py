"""Episodes: a recurring problem is logged at intervals, with a count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

QUIET_SECONDS: Final = 60.0
MAX_KINDS: Final = 1_000
"""How many kinds are counted separately. As a kind may name a program, all further ones count as one kind."""
OTHERS: Final = "Other troubles"


@dataclass
class _Episode:
    """A kind since its last log line: it has happened `untold` more times, the last time for `reason`."""

    told_at: float
    level: int
    untold: int = 0
    reason: str = ""


class Episodes:
    """The episodes of a process. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._episodes: dict[str, _Episode] = {}

    def tell(
        self, what: str, reason: object, *, level: int = logging.WARNING, error: BaseException | None = None
    ) -> None:
        """Log a line, unless one of the same kind was logged a moment ago.

        Args:
            what: the kind, of which there are few: `An answer is not sent`.
            reason: the reason in this case. It names the execution, if there is one.
            error: an error whose traceback is logged with the line, but not with counts.
        """
        now = self._clock()
        with self._lock:
            if what not in self._episodes and len(self._episodes) >= MAX_KINDS:
                what, reason = OTHERS, f"{what}: {reason}"
            episode = self._episodes.get(what)
            if episode is not None:
                episode.untold += 1
                episode.reason = str(reason)
            else:
                self._episodes[what] = _Episode(now, level)
        if episode is None:
            logger.log(level, "%s: %s", what, reason, exc_info=error)
        elif now - episode.told_at >= QUIET_SECONDS:
            self.go_on()

    def go_on(self) -> None:
        """Log the counts of kinds whose last line is some time ago. Call this regularly."""
        if not self._episodes:
            return
        now = self._clock()
        with self._lock:
            due = {what: e for what, e in self._episodes.items() if now - e.told_at >= QUIET_SECONDS}
            for what, episode in due.items():
                if episode.untold:
                    self._episodes[what] = _Episode(now, episode.level)
                else:
                    del self._episodes[what]
        for what, episode in due.items():
            if episode.untold:
                times, seconds = f"{episode.untold} times more", now - episode.told_at
                logger.log(episode.level, "%s: %s in %.0f s, the last: %s", what, times, seconds, episode.reason)
