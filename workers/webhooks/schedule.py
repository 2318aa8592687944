"""Decides what follows an attempt: the next one, the end of the delivery, or disabling the endpoint."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from dspex.contract.status import DeliveryStatus
from dspex.errors import SettingsError
from workers.webhooks.attempt import Attempt, Outcome

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
DELAYS: Final[tuple[float, ...]] = (
    0,
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""Seconds before each attempt, including the first: the example of Standard Webhooks 1.0.0, over three days in all."""
MAX_RETRY_AFTER: Final = DAY
RETRIES_SETTING: Final = "DSPEX_WEBHOOK_RETRIES"


class Step(NamedTuple):
    """What follows an attempt.

    Attributes:
        retry_in: seconds until the next attempt of a pending delivery.
        disable: why the endpoint must be disabled, if it must.
    """

    status: DeliveryStatus
    retry_in: float | None = None
    disable: str | None = None


@dataclass(frozen=True)
class Schedule:
    """When deliveries are retried, and when an endpoint is disabled.

    Attributes:
        delays: seconds before each attempt; their number is the number of attempts.
        jitter: the largest random addition to a delay, as a fraction of it, so that retries spread out.
        max_retry_after: the longest wait, in seconds, that a receiver can ask for.
        disable_after: after so many seconds of failures only, an endpoint is disabled.
        chance: returns a random number from 0 to 1.
    """

    delays: tuple[float, ...] = DELAYS
    jitter: float = 0.1
    max_retry_after: float = MAX_RETRY_AFTER
    disable_after: float = 5 * DAY
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) < 0:
            raise SettingsError(f"{RETRIES_SETTING}: give the seconds before each attempt, 0 or more: 0,5,300")

    def delay(self, attempts: int, retry_after: float | None = None) -> float | None:
        """Seconds until the next attempt after so many attempts; None after the last one.

        The receiver's wish can make it later, within limits, but never earlier.
        """
        if attempts >= len(self.delays):
            return None
        wait = max(self.delays[attempts], min(retry_after or 0.0, self.max_retry_after))
        return wait * (1 + self.jitter * self.chance())

    def step(self, attempt: Attempt, attempts: int, failing_for: float) -> Step:
        """Decide what follows an attempt.

        Args:
            attempts: how many attempts the delivery has had, including this one.
            failing_for: seconds since the endpoint's first failure after its last success; 0 if there was none.
        """
        match attempt.outcome:
            case Outcome.DELIVERED:
                return Step(DeliveryStatus.DELIVERED)
            case Outcome.GONE:
                return Step(DeliveryStatus.FAILED, disable="it answered 410 Gone")
            case Outcome.FAILED | Outcome.THROTTLED | Outcome.REFUSED:
                if failing_for >= self.disable_after:
                    return Step(DeliveryStatus.FAILED, disable=f"it has failed for {failing_for / DAY:.1f} days")
                wait = self.delay(attempts, attempt.retry_after)
                return Step(DeliveryStatus.FAILED if wait is None else DeliveryStatus.PENDING, retry_in=wait)


def parse_retry_after(value: str, now: datetime | None = None) -> float | None:
    """Parse the header `Retry-After`: a number of seconds, or a date (RFC 9110, section 10.2.3).

    Returns:
        Seconds from 0 to `MAX_RETRY_AFTER`; None if the header is invalid.
    """
    if re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        return min(float(value), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(value[:64])
    except (ValueError, OverflowError):
        return None
    at = date if date.tzinfo else date.replace(tzinfo=UTC)
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
