"""A target: a figure that was found, beside the one that is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.results import Measured
from benchmarks.systems import OWN


@dataclass(frozen=True)
class Target:
    """A target and the figure found. `least`: whether more is better. `found` is None if it is unknown."""

    text: str
    wanted: float
    found: float | None
    least: bool = True

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.found is not None and (self.found >= self.wanted if self.least else self.found <= self.wanted)


def median(measured: Measured, variant: str, key: str) -> float | None:
    """The median of a figure of ours; None if every run is void."""
    found = measured.spread(variant, OWN, key)
    return found.median if found else None
