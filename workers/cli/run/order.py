"""Writes results in the order of the rows, although they come in any order."""

from __future__ import annotations

from collections.abc import Callable

MAX_HELD = 20_000
MAX_HELD_BYTES = 64 * 1024 * 1024


class InOrder:
    """Writes texts in the order of their places, beginning with 0. Holds those that come early, up to a limit.

    Args:
        write: writes a text.
        ordered: False: write each text when it comes.
    """

    def __init__(self, write: Callable[[str], None], *, ordered: bool) -> None:
        self._write = write
        self._ordered = ordered
        self._held: dict[int, str] = {}
        self._bytes = 0
        self._next = 0

    @property
    def full(self) -> bool:
        """Whether it holds so much that the sender should wait for the missing ones."""
        return len(self._held) >= MAX_HELD or self._bytes >= MAX_HELD_BYTES

    def put(self, place: int, text: str) -> None:
        """Add the text of a place."""
        if not self._ordered:
            self._write(text)
            return
        if place == self._next and not self._held:
            self._write(text)
            self._next += 1
            return
        self._held[place] = text
        self._bytes += len(text)
        while (following := self._held.get(self._next)) is not None:
            self._write(following)
            self._bytes -= len(self._held.pop(self._next))
            self._next += 1

    def flush(self) -> None:
        """Write everything that is held, in order, as the missing ones will not come."""
        for place in sorted(self._held):
            self._write(self._held.pop(place))
        self._bytes = 0
