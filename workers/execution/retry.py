"""Decides whether another attempt follows a failed one, and when, by the code of the error.


| code | what happens |
|---|---|
| `transient`, `timeout`, `crashed` | retried when the provider says, or after a growing pause; spends an attempt |
| `rate_limited` | retried when the provider says, or after a growing pause; spends none, within `max_wait` |
| `parse_failure`, `invalid_output` | retried once, at once, if the policy's `repair` is set |
| every other | the execution fails |

If a process cannot build the program, because it lacks an alias, a secret, a module or an adapter that other workers
have, the execution does not fail: it is given back (`not_here`).

The number of attempts and the deadline limit all retries: a pause that would outlast the deadline ends the execution.
Pauses have a minimum, whatever a policy or an adapter says, so that no execution fails in a tight loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dspex import ErrorCode
from dspex.backoff import spread
from dspex.contract.retry_policy import ExecutionPolicy
from store.executions import Carried

PASSING = frozenset({ErrorCode.TRANSIENT, ErrorCode.TIMEOUT, ErrorCode.CRASHED})
REPAIRABLE = frozenset({ErrorCode.PARSE_FAILURE, ErrorCode.INVALID_OUTPUT})

SHORTEST_PAUSE = 1.0
"""Seconds, reduced at random by up to a half, like every pause."""
LOOKS = 6
"""How many pauses are of the shortest length after attempts that could not begin."""
SHORTEST_SHARE = 1 / 20
"""The shortest wait for a rate limit, as a share of the sum of those before. So a week has 250, and not 600,000."""


@dataclass(frozen=True)
class Failed:
    """A failed attempt.

    Attributes:
        attempt: its number, from 1.
        max_attempts: the most attempts.
        carried: the state from earlier attempts.
        retry_after: how many seconds the provider asked to wait.
        seconds_left: seconds until the deadline, or None.
    """

    code: ErrorCode
    attempt: int
    max_attempts: int
    policy: ExecutionPolicy
    carried: Carried
    retry_after: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Again:
    """Another attempt follows after `delay` seconds; `attempt` attempts are spent."""

    delay: float
    attempt: int
    carried: Carried


def decide(failed: Failed) -> Again | None:
    """Decide on another attempt. None: the execution has failed."""
    again = _by_meaning(failed)
    if again is None or again.attempt >= failed.max_attempts:
        return None
    if failed.seconds_left is not None and again.delay >= failed.seconds_left:
        return None
    return again


def not_here(attempt: int, carried: Carried) -> Again:
    """The retry after an attempt that could not begin, because this process cannot build the program.

    It counts as a wait, so that the pauses grow up to five minutes by the default policy, whatever the program's
    policy. The first ones do not grow: where one worker of many can build it, several may have to look.
    """
    pause = _pause(ExecutionPolicy(), max(0, carried.waits - LOOKS))
    return Again(pause, attempt - 1, replace(carried, waits=carried.waits + 1))


def _by_meaning(failed: Failed) -> Again | None:
    policy, carried = failed.policy, failed.carried
    if failed.code in PASSING:
        asked = _seconds(failed.retry_after)
        delay = max(_pause(policy, failed.attempt - 1), asked)
        return Again(delay, failed.attempt, carried) if asked <= policy.max_wait else None
    if failed.code in REPAIRABLE and policy.repair and not carried.repaired:
        return Again(0.0, failed.attempt, replace(carried, repaired=True))
    if failed.code is ErrorCode.RATE_LIMITED:
        least = max(_pause(policy, carried.waits), carried.waited * SHORTEST_SHARE)
        delay = max(least, _seconds(failed.retry_after))
        waited = carried.waited + delay
        if waited <= policy.max_wait:
            return Again(delay, failed.attempt - 1, replace(carried, waits=carried.waits + 1, waited=waited))
    return None


def _pause(policy: ExecutionPolicy, number: int) -> float:
    """Exponential back-off with jitter: from half of the pause to all of it, so that retries spread out.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("equal jitter")
    """
    whole = min(policy.max_delay, policy.first_delay * policy.multiplier ** min(number, 100))
    return spread(max(whole, SHORTEST_PAUSE))


def _seconds(retry_after: float | None) -> float:
    """The provider's wait in seconds; 0 for an invalid number, as it comes from outside."""
    return retry_after if retry_after is not None and math.isfinite(retry_after) else 0.0
