"""How long the writes of executions may wait for each other: a small part of what executions take, if there are many.

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
_WEIGHT: Final = 1 / 16


class Pace:
    """The mean time of the latest executions. Its threads may overwrite each other: it is an estimate."""

    def __init__(self) -> None:
        self._mean = 0.0

    def ended(self, seconds: float) -> None:
        """Note how long an execution took."""
        self._mean += (seconds - self._mean) * _WEIGHT

    def allows(self, in_flight: int) -> float:
        """How many seconds a claim or an end may wait for others, with so many executions in flight."""
        if in_flight < MANY:
            return 0.0
        seconds = min(self._mean * PART, MOST_SECONDS)
        return seconds if seconds >= LEAST_SECONDS else 0.0
