"""Ctrl-C, SIGTERM and SIGHUP end a run between two steps, so that results are kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal has stopped the run."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class Stop:
    """Remembers the first signal. Signals that are ignored from the start, such as by nohup, stay ignored."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._anywhere = False

    @contextmanager
    def listening(self) -> Generator[None]:
        """Handle signals until the end of the block. Only for the main thread."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def anywhere(self) -> Generator[None]:
        """A block that a signal may interrupt, as it waits for others."""
        self._anywhere = True
        try:
            self.check()
            yield
        finally:
            self._anywhere = False

    def check(self) -> None:
        """End the run here if a signal has come.

        Raises:
            Stopped: a signal has come.
        """
        if self._number is not None:
            raise Stopped(self._number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self._number = self._number is None, self._number or number
        if self._anywhere and first:
            raise Stopped(number)
