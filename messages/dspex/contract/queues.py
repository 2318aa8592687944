"""The queues of work. Each command names its own: nothing waits behind executions but executions."""

from __future__ import annotations

from typing import Final

PROGRAMS_QUEUE: Final = "dspex.programs"
EXECUTIONS_QUEUE: Final = "dspex.executions"
REQUESTS_QUEUE: Final = "dspex.requests"
