"""The retry policy of a program: attempts, time limit, pauses between attempts, and how many are traced."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from dspex.model import Sparse
from dspex.scalars import WHOLE


class ExecutionPolicy(Sparse):
    """How often and how long the executions of a program are tried. Times are in seconds.

    The error of an attempt decides whether there is another (see the table in `workers.execution.retry`). After a
    transient error the pause is `first_delay`, then `multiplier` times the previous one, at most `max_delay`, reduced
    at random by up to a half. A pause is at least half a second, even if the policy says less. An attempt that hits the
    provider's rate limit does not count. It waits as long as the provider says, and all such waits together may take up
    to `max_wait`. Each such wait is at least a twentieth of the sum of those before it, which limits their number to a
    few hundred.
    """

    max_attempts: Annotated[StrictInt, Field(ge=1, le=100), WHOLE] | None = None
    """The most attempts of an execution; None: the workers' `DSPEX_MAX_ATTEMPTS`."""
    time_limit: float = Field(default=3600.0, gt=0, le=86_400)
    """The time limit of one attempt. After it the attempt ends as `timeout`, even if the adapter cannot stop it."""
    first_delay: float = Field(default=1.0, ge=0, le=3600)
    multiplier: float = Field(default=2.0, ge=1, le=10)
    max_delay: float = Field(default=300.0, ge=0, le=86_400)
    max_wait: float = Field(default=3600.0, ge=0, le=7 * 86_400)
    repair: StrictBool = True
    """Whether to ask the LM once more after an answer that cannot be parsed or does not fit the signature."""
    trace_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of how many executions the trace is kept, where their `options.trace` does not say: 0.01 of one in a hundred."""
