"""What comes of one attempt to deliver: a closed set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

THROTTLING: Final = frozenset({429, 502, 503, 504})
"""The statuses by which a receiver, or what stands before it, says: later. As Standard Webhooks 1.0.0 reads them."""


class Outcome(StrEnum):
    """How an attempt ended; `workers.webhooks.schedule` says what happens then."""

    DELIVERED = "delivered"
    """The receiver answered with 2xx."""
    FAILED = "failed"
    """It answered otherwise (a redirect too), or not at all."""
    THROTTLED = "throttled"
    """It asks to be left alone for a while."""
    GONE = "gone"
    """It answered with 410: it wants no more."""
    REFUSED = "refused"
    """Nothing was sent: the address is not allowed, or the signing secret is none."""


def outcome_of(status: int) -> Outcome:
    """What an HTTP status means."""
    if 200 <= status <= 299:
        return Outcome.DELIVERED
    if status == 410:
        return Outcome.GONE
    return Outcome.THROTTLED if status in THROTTLING else Outcome.FAILED


@dataclass(frozen=True)
class Attempt:
    """One attempt, as the log keeps it.

    Attributes:
        status: of HTTP; None where there was no answer.
        reason: a line for people where it was not delivered; never an address, a secret or a header.
        response: the beginning of the body of the answer, as text that any database can keep.
        duration_ms: from before the name was looked up to after the answer was read.
        retry_after: seconds that the receiver asks to wait, within bounds; None where it does not.
    """

    outcome: Outcome
    duration_ms: float
    status: int | None = None
    reason: str | None = None
    response: str = ""
    retry_after: float | None = None
