"""The body of a webhook: the event as a CloudEvent, or a reference where that is too large or not wanted."""

from __future__ import annotations

from typing import Any, Final

from dspex.envelope import Envelope
from dspex.events import Event, ExecutionCancelled, ExecutionCompleted, ExecutionEnded, ExecutionFailed
from dspex.status import ExecutionStatus

MAX_BODY_BYTES: Final = 20_000
"""Standard Webhooks 1.0.0 asks for payloads under 20 kB."""

_STATUSES: Final[dict[type[Event], ExecutionStatus]] = {
    ExecutionCompleted: ExecutionStatus.COMPLETED,
    ExecutionFailed: ExecutionStatus.FAILED,
    ExecutionCancelled: ExecutionStatus.CANCELLED,
}

Ended = ExecutionCompleted | ExecutionFailed | ExecutionCancelled


def reference(event: Ended) -> ExecutionEnded:
    """The event without its content: which execution, and how it ended."""
    return ExecutionEnded(
        execution_id=event.execution_id,
        program_id=event.program_id,
        status=_STATUSES[type(event)],
        error_code=event.error.code if isinstance(event, ExecutionFailed) else None,
        attempt=event.attempt,
        duration_ms=event.duration_ms,
    )


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
