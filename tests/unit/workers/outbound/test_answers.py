"""The answer to an execution that is waited for: its view, or why that cannot be sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dspex import ExecutionStatus, LMCall, Usage, uuid7
from dspex.contract.envelope import MAX_ANSWER_BYTES, decode_event
from dspex.contract.events import Reply
from dspex.contract.options import ExecutionOptions
from store.executions import Execution
from store.executions.timeline import TimelineEntry
from workers.execution.event_publisher import _answer
from workers.outbound.serializers import execution_view

NOW = datetime(2026, 11, 29, 10, 0, 0, 250_000, tzinfo=UTC)


def ended(**inputs: Any) -> Execution:
    return Execution(
        id=uuid7(),
        program_id=uuid7(),
        status=ExecutionStatus.COMPLETED,
        inputs=inputs,
        options=ExecutionOptions(seed=7, deadline=NOW),
        outputs={"answer": "because é", "score": 1e22, "parts": [{"a": None}, True, -0.5]},
        error=None,
        usage=Usage(calls=1, lm_calls=(LMCall(model="m", cost=0.1),)),
        duration_ms=12.5,
        attempt=2,
        backend_id="backend-1",
        worker="worker-1",
        source="/tests",
        traceparent=None,
        inserted_at=NOW,
        updated_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        lock_version=5,
        tenant="default",
        cancel_requested=False,
        timeline=(TimelineEntry("running", NOW, 1, "worker-1"),),
        reply_to="replies",
        correlation_id="7",
    )


def read(execution: Execution, largest: int = MAX_ANSWER_BYTES) -> Reply:
    message = _answer(execution, "replies", largest)
    envelope = decode_event(message.body)
    assert envelope.id == message.message_id == f"{execution.id}.5.reply"
    assert (message.exchange, message.routing_key, message.correlation_id) == ("", "replies", "7")
    assert isinstance(envelope.data, Reply)
    return envelope.data


def test_it_is_the_view_as_its_own_json() -> None:
    execution = ended(question="why?")
    assert read(execution) == Reply(answer=execution_view(execution).model_dump(mode="json"))


def test_one_that_is_too_large_says_so() -> None:
    reply = read(ended(question="?" * 2_000), 2_000)
    assert reply.answer is None
    assert reply.error is not None
    assert reply.error.code == "answer_too_large"
    assert "it is done" in reply.error.message
    assert "workers.local" in reply.error.message
