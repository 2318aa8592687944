"""What happens again and again is told once in a while, with how often it did."""

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
"""So many kinds are counted apart at a time. Some name a program: what comes on top is one kind."""
OTHERS: Final = "Other troubles"


@dataclass
class _Episode:
    """What one line told of, until the next: `untold` more, the last for `reason`."""

    told_at: float
    level: int
    untold: int = 0
    reason: str = ""


class Episodes:
    """For any thread."""

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
            reason: of this one: it names the execution, where it is about one.
            error: its traceback is shown with the line; not with the counts.
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
        """Tell how often it happened since the last line, of what was told a while ago. To be called now and then."""
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
