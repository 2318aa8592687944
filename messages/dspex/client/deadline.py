"""The deadline of a verb, shared by every request that it makes.

`execute_program(timeout=2)` may ask for a signature, publish, and wait: all of it within the same two seconds.
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
    """Limit the requests inside the block to so many seconds, or to what an enclosing block has left."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def left(seconds: float) -> float:
    """So many seconds, or what the current verb has left, if that is less; at least 0."""
    return max(0.0, min(seconds, _deadline.get() - time.monotonic()))
