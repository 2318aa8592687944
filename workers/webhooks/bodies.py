"""The body of a webhook: the event as a CloudEvent, or a reference where that is too large or not wanted."""

from __future__ import annotations

from typing import Any, Final

from dspex.contract.envelope import Envelope
from workers.outbound.ended_event import reference

MAX_BODY_BYTES: Final = 20_000
"""Standard Webhooks 1.0.0 asks for payloads under 20 kB."""


def encode(envelope: Envelope[Any], *, thin: bool = False) -> bytes:
    """The body, the same for the same envelope: the event, or its reference with the same id.

    Args:
        envelope: of one of the events by which an execution ends.
        thin: whether the reference is wanted whatever the size.
    """
    body = envelope.model_dump_json().encode()
    if not thin and len(body) <= MAX_BODY_BYTES:
        return body
    ended = reference(envelope.data)
    return envelope.model_copy(update={"type": ended.type, "dataschema": None, "data": ended}).encode()
