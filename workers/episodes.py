"""What goes wrong again and again is told once in a while, with how often it did."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

QUIET_SECONDS: Final = 60.0


class Episodes:
    """For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}  # when, and how often it was not told since

    def tell(self, what: str, reason: object) -> None:
        """Log a warning, unless one of the same kind was logged a moment ago.

        Args:
            what: the kind, of which there are few: `An answer is not sent`.
            reason: of this one.
        """
        now = self._clock()
        with self._lock:
            at, untold = self._told.get(what, (-QUIET_SECONDS, 0))
            quiet = now - at < QUIET_SECONDS
            self._told[what] = (at, untold + 1) if quiet else (now, 0)
        if not quiet:
            logger.warning("%s: %s%s", what, reason, f" ({untold} more since the last line)" if untold else "")
