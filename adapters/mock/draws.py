"""Pseudo-random numbers that are the same in every process, on every machine and Python version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from dspex.ids import canonical_json

Item = TypeVar("Item")

_MASK = (1 << 64) - 1


class Draws:
    """Pseudo-random numbers: SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), seeded by SHA-256.

    The `random` module is not used: between Python versions, only its `random()` is guaranteed to stay the same.
    """

    def __init__(self, *key: Any) -> None:
        self._state = int.from_bytes(hashlib.sha256(canonical_json(key)).digest()[:8], "big")

    def bits(self) -> int:
        """64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        return mixed ^ mixed >> 31

    def below(self, limit: int) -> int:
        """A whole number from 0 up to, not including, `limit`."""
        drawn = self.bits()
        while limit > _MASK and drawn < limit << 64:
            drawn = drawn << 64 | self.bits()
        return drawn % limit

    def fraction(self) -> float:
        """A number from 0 up to, not including, 1."""
        return (self.bits() >> 11) / (1 << 53)

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]
