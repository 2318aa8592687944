"""The result of one attempt to deliver, from a closed set of outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

THROTTLING: Final = frozenset({429, 502, 503, 504})
"""The statuses by which a receiver, or a proxy before it, asks to come later, by Standard Webhooks 1.0.0."""


class Outcome(StrEnum):
    """The outcome of an attempt. `workers.webhooks.schedule` decides what follows."""

    DELIVERED = "delivered"
    """The receiver answered with 2xx."""
    FAILED = "failed"
    """It answered with another status (including redirects), or not at all."""
    THROTTLED = "throttled"
    """It asked for a later attempt."""
    GONE = "gone"
    """It answered with 410: it wants no more webhooks."""
    REFUSED = "refused"
    """Nothing was sent, as the address is not allowed or the signing secret is invalid."""


def outcome_of(status: int) -> Outcome:
    """The outcome for an HTTP status."""
    if 200 <= status <= 299:
        return Outcome.DELIVERED
    if status == 410:
        return Outcome.GONE
    return Outcome.THROTTLED if status in THROTTLING else Outcome.FAILED


@dataclass(frozen=True)
class Attempt:
    """One attempt, in the form of the log.

    Attributes:
        status: the HTTP status; None if there was no response.
        reason: one line for people, if it was not delivered. Never contains an address, a secret or a header.
        response: the beginning of the response's body, as text that any database can store.
        duration_ms: milliseconds from resolving the name to reading the response.
        retry_after: how many seconds the receiver asks to wait, within limits; None if it does not.
    """

    outcome: Outcome
    duration_ms: float
    status: int | None = None
    reason: str | None = None
    response: str = ""
    retry_after: float | None = None
