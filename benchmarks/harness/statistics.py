"""Arithmetic on measurements."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple


class Progress(NamedTuple):
    """How many jobs were done at a time, in seconds of `time.monotonic`."""

    at: float
    done: int

    @classmethod
    def now(cls, done: int) -> Progress:
        """So many are done at this moment."""
        return cls(time.monotonic(), done)


class Spread(NamedTuple):
    """The spread of a figure over several runs."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median, the least and the greatest of some values, at least one."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def reached(progress: Sequence[Progress], done: float) -> float:
    """When so many were done, interpolated between two observations; the first one, if it had more already.

    Raises:
        ValueError: so many were never done.
    """
    before = progress[0]
    for now in progress:
        if now.done >= done:
            if now.done == before.done:
                return now.at
            share = (done - before.done) / (now.done - before.done)
            return before.at + max(0.0, share) * (now.at - before.at)
        before = now
    raise ValueError(f"{done:g} were never done")


def middle_rate(progress: Sequence[Progress], jobs: int, begin: float = 0.05, end: float = 0.95) -> float:
    """Jobs per second between two shares of all jobs, which excludes the start of the workers and stragglers."""
    return jobs * (end - begin) / (reached(progress, jobs * end) - reached(progress, jobs * begin))


def rate_of_time(progress: Sequence[Progress]) -> float:
    """Jobs a second from the first observation to the last."""
    return (progress[-1].done - progress[0].done) / (progress[-1].at - progress[0].at)
