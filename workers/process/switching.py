"""How often Python's threads take turns in a worker process that has many."""

from __future__ import annotations

import sys
from typing import Final

EACH_SECONDS: Final = 25e-6
"""What each thread adds to the interval: all that wait together then ask at most 40,000 times a second."""
MOST_SECONDS: Final = 0.05
"""The longest interval: that long a tool that only computes may hold up others, such as the heartbeat."""


def switch_seldom(threads: int) -> None:
    """Make threads that wait for Python ask for it less often, if there are many.

    Each one that waits wakes up once in the interval, by default 5 ms, to ask whoever runs to stop (CPython:
    Python/ceval_gil.h, `take_gil`). When hundreds of LM calls have been answered on a busy machine, these threads get
    the CPU that the one which runs would need, and ever more of them wait.
    """
    sys.setswitchinterval(max(sys.getswitchinterval(), min(threads * EACH_SECONDS, MOST_SECONDS)))
