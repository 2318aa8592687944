"""What a program grants each of its executions: attempts, time, and pauses between attempts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from dspex.model import Sparse
from dspex.scalars import WHOLE


class ExecutionPolicy(Sparse):
    """How often and how long the executions of a program may try. Times are in seconds.

    What an attempt ended with decides whether there is another (`workers.execution.retry` has the table): a passing
    error is tried again after `first_delay`, then `multiplier` times as long each time, at most `max_delay`, less a
    random part of up to a half. No pause is shorter than half a second, whatever is asked for here. An attempt that the
    provider's rate limit turned away does not count; it waits as long as the provider says, and all such waits together
    take at most `max_wait`, as the clock has it. No such wait is shorter than a twentieth of those before it together,
    so that there are some hundreds at most.
    """

    max_attempts: Annotated[StrictInt, Field(ge=1, le=100), WHOLE] | None = None
    """How often an execution is started at most; None: `DSPEX_MAX_ATTEMPTS` of the workers."""
    time_limit: float = Field(default=3600.0, gt=0, le=86_400)
    """Of one attempt. It ends as `timeout`, whatever the adapter is able to stop."""
    first_delay: float = Field(default=1.0, ge=0, le=3600)
    multiplier: float = Field(default=2.0, ge=1, le=10)
    max_delay: float = Field(default=300.0, ge=0, le=86_400)
    max_wait: float = Field(default=3600.0, ge=0, le=7 * 86_400)
    repair: StrictBool = True
    """Whether an answer that cannot be read, or does not fit, is asked for once more."""
