"""The work queues. Each command names its queue; only executions wait behind executions."""

from __future__ import annotations

from typing import Final

PROGRAMS_QUEUE: Final = "dspex.programs"
EXECUTIONS_QUEUE: Final = "dspex.executions"
REQUESTS_QUEUE: Final = "dspex.requests"
