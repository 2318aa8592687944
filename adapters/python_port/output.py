"""What a run prints: taken from the pipe as it comes, the beginning kept."""

from __future__ import annotations

import os

from adapters.port import TraceStep
from adapters.trace import bounded


class Captured:
    """One stream of a child, stdout or stderr. The pipe is always emptied, so that a program that prints never waits.

    Args:
        descriptor: the end of the pipe to read from; it does not block.
        max_bytes: what is kept of a run.
    """

    def __init__(self, name: str, descriptor: int, max_bytes: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._size = 0

    def forget(self) -> None:
        """Begin anew: what is in the pipe by now belongs to the run before."""
        self.take()
        self._kept.clear()
        self._size = 0

    def take(self) -> bool:
        """Read what is there. Returns whether there may be more one day."""
        # Bounded: a child that prints faster than it is read would keep the reader here.
        for _ in range(64):
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._size += len(data)
            self._kept += data[: self._max_bytes - len(self._kept)]
        return True

    def step(self, key: str | None) -> TraceStep | None:
        """What was printed, as a step of a trace, the key taken out of it; None for nothing."""
        if not self._size:
            return None
        return TraceStep(kind="output", name=self.name, details={"text": bounded(self.text(key)), "bytes": self._size})

    def text(self, key: str | None) -> str:
        """What was kept, the key taken out of it."""
        text = self._kept.decode(errors="replace")
        return text.replace(key, "***") if key else text
