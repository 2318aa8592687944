"""Bodies: an event is sent whole where it is small, and as a reference where it is not."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from dspex import ErrorDetail, ExecutionCompleted, ExecutionStatus, decode_event, wrap
from dspex.contract.events import Event, ExecutionCancelled, ExecutionEnded, ExecutionFailed
from workers.webhooks.bodies import MAX_BODY_BYTES, encode

ID, OTHER = UUID("0190f6a0-0000-7000-8000-000000000000"), UUID("0190f6a0-0000-7000-8000-000000000001")
COMMON: dict[str, Any] = {"execution_id": ID, "program_id": OTHER, "attempt": 2, "duration_ms": 1.5}
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"


def completed(size: int) -> ExecutionCompleted:
    return ExecutionCompleted(outputs={"a": "x" * size}, **COMMON)


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (completed(1), ExecutionStatus.COMPLETED, None),
        (ExecutionFailed(error=ErrorDetail(code="auth", message="x" * 9000), **COMMON), ExecutionStatus.FAILED, "auth"),
        (ExecutionCancelled(**COMMON), ExecutionStatus.CANCELLED, None),
    ],
)
def test_a_thin_body_is_a_reference_with_the_same_id(event: Event, status: ExecutionStatus, code: str | None) -> None:
    envelope = wrap(event, source="/dspex", traceparent=TRACE)
    body = encode(envelope, thin=True)
    thin = decode_event(body)
    assert thin.data == ExecutionEnded(status=status, error_code=code, **COMMON)
    assert thin.type == "dspex.execution.ended.v1"
    kept = ("id", "source", "subject", "time", "traceparent")
    assert [getattr(thin, name) for name in kept] == [getattr(envelope, name) for name in kept]
    assert len(body) < 1000


def test_a_small_event_is_sent_as_it_is() -> None:
    envelope = wrap(completed(10), source="/dspex")
    assert encode(envelope) == encode(envelope) == envelope.encode()


def test_the_cap_is_of_bytes_and_exact() -> None:
    overhead = len(wrap(completed(0), source="/dspex").encode())
    at = wrap(completed(MAX_BODY_BYTES - overhead), source="/dspex")
    over = wrap(completed(MAX_BODY_BYTES - overhead + 1), source="/dspex")
    assert len(encode(at)) == MAX_BODY_BYTES
    assert decode_event(encode(at)) == at
    assert decode_event(encode(over)).type == ExecutionEnded.type


def test_an_event_beyond_the_cap_of_messages_still_has_a_reference() -> None:
    assert decode_event(encode(wrap(completed(2_000_000), source="/dspex"))).type == ExecutionEnded.type
