"""A value that tests put into inputs, outputs and secrets, and that no log line may show."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

CANARY: Final = "canary-7d1f0c"

_FORMAT: Final = logging.Formatter("%(name)s: %(message)s")  # with the traceback, as a worker's lines have it


class _Watch(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.sung: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # Of an instance of another level: a worker's level is a setting.
        line = _FORMAT.format(record)
        if CANARY in line:
            self.sung.append(line)


@contextmanager
def watched() -> Generator[None]:
    """Fails where a line that this process logs meanwhile, at any level that is on, shows the value."""
    watch, root = _Watch(), logging.getLogger()
    root.addHandler(watch)
    try:
        yield
    finally:
        root.removeHandler(watch)
    assert not watch.sung, f"a log line shows data: {watch.sung[0][:2000]}"
