"""Captures the text that a run prints, and keeps the beginning of it."""

from __future__ import annotations

import os
from collections.abc import Collection

from adapters.port import TraceStep
from adapters.trace import bounded, without


class Captured:
    """One stream of a child, stdout or stderr. The pipe is always emptied, so that printing never blocks.

    Args:
        descriptor: the read end of the pipe, non-blocking.
        max_bytes: how much is kept of a run.
    """

    def __init__(self, name: str, descriptor: int, max_bytes: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._size = 0

    def forget(self) -> None:
        """Start over: what is in the pipe now belongs to the previous run."""
        self.take()
        self._kept.clear()
        self._size = 0

    def take(self) -> bool:
        """Read what is available. Returns False at the end of the stream."""
        # Bounded: otherwise a child that prints faster than we read would keep us here.
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

    def step(self, keys: Collection[str]) -> TraceStep | None:
        """The printed text as a step of a trace, without the keys; None if nothing was printed."""
        if not self._size:
            return None
        return TraceStep(kind="output", name=self.name, details={"text": bounded(self.text(keys)), "bytes": self._size})

    def text(self, keys: Collection[str]) -> str:
        """The text that was kept, without the keys."""
        return without(self._kept.decode(errors="replace"), keys)
