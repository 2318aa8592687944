"""How long executions take here: so long may their writes wait for each other, and so some may be claimed ahead.

With a thousand executions of five seconds in flight, two hundred end in a second, one by one. Then a transaction for
each end and each claim costs more CPU than its LM call.
"""

from __future__ import annotations

from typing import Final

MANY: Final = 128
"""Executions in flight from which their writes are gathered."""
PART: Final = 1 / 250
"""The part of the time of an execution by which its writes may be late."""
LEAST_SECONDS: Final = 0.002
"""Less is not worth a wait."""
MOST_SECONDS: Final = 0.025
SHORT_SECONDS: Final = 0.25
"""Runs of up to this time are short: one that is claimed ahead of them waits no longer for its thread."""
AHEAD_SECONDS: Final = 0.01
"""As much work as short runs do in this time is claimed ahead, so that one transaction claims several of them."""
MOST_AHEAD: Final = 2
"""How many are claimed ahead for each thread at most."""
RESERVE: Final = 8
"""While runs are short, one is claimed ahead for each so many threads at least, so that a thread need not wait for its
next one. Behind long runs it would wait itself, although another process may have time."""
_WEIGHT: Final = 1 / 16


class Pace:
    """The mean time of the latest executions. Its threads may overwrite each other: it is an estimate."""

    def __init__(self) -> None:
        self._mean: float | None = None  # None: none has ended yet

    def ended(self, seconds: float) -> None:
        """Note how long an execution took."""
        mean = self._mean
        self._mean = seconds if mean is None else mean + (seconds - mean) * _WEIGHT

    def at_least(self, seconds: float) -> None:
        """Note that executions take this long, although they have not ended."""
        self._mean = max(seconds, self._mean or 0.0)

    @property
    def short(self) -> bool:
        """Whether executions are short, as far as is known."""
        return self._mean is not None and self._mean <= SHORT_SECONDS

    def ahead(self, threads: int) -> int:
        """How many executions to claim beyond those that so many threads run."""
        if self._mean is None or not self.short:
            return 0
        soon = threads * AHEAD_SECONDS / max(self._mean, AHEAD_SECONDS / MOST_AHEAD)
        return max(threads // RESERVE, int(soon))

    def allows(self, in_flight: int) -> float:
        """How many seconds a claim or an end may wait for others, with so many executions in flight."""
        if in_flight < MANY or self._mean is None:
            return 0.0
        seconds = min(self._mean * PART, MOST_SECONDS)
        return seconds if seconds >= LEAST_SECONDS else 0.0
