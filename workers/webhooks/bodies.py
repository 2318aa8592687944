"""The body of a webhook: the event as a CloudEvent, or a reference if that is too large or not wanted."""

from __future__ import annotations

from typing import Any, Final

from dspex.contract.envelope import Envelope
from workers.outbound.ended_event import reference

MAX_BODY_BYTES: Final = 20_000
"""Standard Webhooks 1.0.0 asks for payloads under 20 kB."""


def encode(envelope: Envelope[Any], *, thin: bool = False) -> bytes:
    """Encode the body: the event, or its reference with the same id. Equal envelopes have equal bodies.

    Args:
        envelope: the envelope of an event for the end of an execution.
        thin: always send the reference.
    """
    body = envelope.model_dump_json().encode()
    if not thin and len(body) <= MAX_BODY_BYTES:
        return body
    ended = reference(envelope.data)
    return envelope.model_copy(update={"type": ended.type, "dataschema": None, "data": ended}).encode()
