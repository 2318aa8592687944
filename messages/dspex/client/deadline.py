"""The time that a verb has: whatever it asks on its way shares it.

`execute_program(timeout=2)` asks for a signature, publishes, and waits: all of it within these two seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_deadline: ContextVar[float] = ContextVar("dspex_deadline", default=math.inf)


@contextmanager
def within(seconds: float) -> Generator[None]:
    """What is asked inside ends in so many seconds, or with what is around it where that is sooner."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def left(seconds: float) -> float:
    """How many of these seconds are there: fewer where the verb that asks has less time left, and never less than 0."""
    return max(0.0, min(seconds, _deadline.get() - time.monotonic()))
