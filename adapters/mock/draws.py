"""Pseudo-random numbers that are the same in every process, on every machine and Python version."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from dspex.ids import canonical_json

Item = TypeVar("Item")

_MASK = (1 << 64) - 1


class Draws:
    """Pseudo-random numbers: SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), seeded by SHA-256.

    The `random` module is not used: between Python versions, only its `random()` is guaranteed to stay the same.

    Attributes:
        ending: the value that is made should end as soon as it can.
    """

    def __init__(self, *key: Any) -> None:
        self.ending = False
        self._depth = self._count = 0
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

    @contextmanager
    def nested(self, deepest: int, most: int) -> Generator[None]:
        """Make a value in others: they are `ending` where they nest deeper than this, or when there are so many."""
        before = self.ending
        self._depth, self._count = self._depth + 1, self._count + 1
        self.ending = before or self._depth > deepest or self._count > most
        try:
            yield
        finally:
            self.ending = before
            self._depth -= 1
