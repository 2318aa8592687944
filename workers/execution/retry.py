"""Whether a failed attempt is followed by another, and when: decided here, by what the failure means.

| code | what happens |
|---|---|
| `transient`, `timeout`, `crashed` | when the provider says, or after a growing pause; each start spends an attempt |
| `rate_limited` | again, when the provider says, or after a pause that grows; it spends none, within `max_wait` |
| `parse_failure`, `invalid_output` | again once, at once, where the policy repairs |
| every other | it has failed |

What cannot be built in the process that has it (an alias, a secret, a module, an adapter that only others know) has not
failed: it is given back (`not_here`).

Attempts and the deadline cap all of it: a pause that would outlast the deadline is not waited for. Pauses have a floor,
whatever a policy or an adapter says: nothing that fails at once is run in a loop.
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
"""Seconds; by chance up to a half less, as every pause."""
SHORTEST_SHARE = 1 / 20
"""A wait for a rate limit takes at least so much of those before it, so a week has 250 of them and not 600,000."""


@dataclass(frozen=True)
class Failed:
    """An attempt that failed.

    Attributes:
        attempt: its number, from 1.
        max_attempts: how many there may be.
        carried: from the attempts before.
        retry_after: seconds that the provider asked to wait.
        seconds_left: until the deadline, where there is one.
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
    """Another attempt in `delay` seconds; `attempt` are spent."""

    delay: float
    attempt: int
    carried: Carried


def decide(failed: Failed) -> Again | None:
    """Whether there is another attempt, and when; None: the execution has failed."""
    again = _by_meaning(failed)
    if again is None or again.attempt >= failed.max_attempts:
        return None
    if failed.seconds_left is not None and again.delay >= failed.seconds_left:
        return None
    return again


def not_here(attempt: int, carried: Carried) -> Again:
    """An attempt that could not begin in this process: what the program names is not known to it.

    It is counted among the waits, so that the pauses grow to those of the usual policy, five minutes, whatever the
    program's own says.
    """
    return Again(_pause(ExecutionPolicy(), carried.waits), attempt - 1, replace(carried, waits=carried.waits + 1))


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
    """Exponential back-off with jitter: between half of the pause and all of it, so that many do not come at once.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("equal jitter")
    """
    whole = min(policy.max_delay, policy.first_delay * policy.multiplier ** min(number, 100))
    return spread(max(whole, SHORTEST_PAUSE))


def _seconds(retry_after: float | None) -> float:
    """What a provider asks for comes from outside: a number that is none asks for nothing."""
    return retry_after if retry_after is not None and math.isfinite(retry_after) else 0.0
