"""Durations as counts in logarithmic buckets: four for each doubling, so that quantiles are accurate to 9 %.


Bucket b counts durations above 2^((b-1)/4) and up to 2^(b/4) milliseconds. The first and the last bucket count the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

PER_DOUBLING = 4
FIRST, LAST = -40, 160
"""About a microsecond, and 35 years."""

_RATIO = math.exp2(1 / PER_DOUBLING)
RELATIVE_ERROR = (_RATIO - 1) / (_RATIO + 1)
"""The largest relative error of a quantile: 0.087."""


def bucket(milliseconds: float) -> int:
    """The bucket of a duration."""
    if not milliseconds > math.exp2(FIRST / PER_DOUBLING):
        return FIRST
    if milliseconds > math.exp2((LAST - 1) / PER_DOUBLING):
        return LAST
    return math.ceil(math.log2(milliseconds) * PER_DOUBLING)


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """The duration in milliseconds below which a share `q` of the runs is; None if there are no runs."""
    rank = q * (sum(histogram.values()) - 1)
    passed = 0
    for number in sorted(histogram):
        passed += histogram[number]
        if passed > rank:
            # The middle of the bucket, with the same relative distance to both ends.
            return (1 - RELATIVE_ERROR) * math.exp2(number / PER_DOUBLING)
    return None
