"""Answers and events at the bound, and over it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from dspex import ErrorDetail, ExecutionCompleted, ExecutionFailed, LMCall, Usage, uuid7
from dspex.contract.envelope import MAX_ANSWER_BYTES, Context, decode_event
from dspex.contract.events import ExecutionEnded, MessageRejected, ProblemDetail, Reply
from dspex.contract.results import Answer, Page, RejectedMessageView, SignatureSchema
from dspex.contract.status import DeadLetterStatus, SignatureStatus
from dspex.errors import Conflict, InvalidInput, Problem
from store.database.pages import _decode
from workers.outbound.encoder import Encoded, encode_answer, encode_error, encode_event

NOW = datetime(2026, 11, 29, 10, 0, 0, 250_001, tzinfo=UTC)
LARGEST = 20_000


def letter(number: int, body: str) -> RejectedMessageView:
    return RejectedMessageView(
        rejection_id=UUID(int=number),
        status=DeadLetterStatus.DEAD,
        queue="dspex.programs",
        error=ErrorDetail(code="conflict", message="m"),
        message_id=None,
        message_type=None,
        body=body,
        body_encoding="utf-8",
        body_size=len(body),
        deliveries=1,
        inserted_at=NOW - timedelta(microseconds=number),
        updated_at=NOW,
    )


def reply(encoded: Encoded) -> Reply:
    found = decode_event(encoded.body, MAX_ANSWER_BYTES).data
    assert isinstance(found, Reply)
    return found


def page(*bodies: str, after: str | None = None) -> Page[RejectedMessageView]:
    return Page(items=tuple(letter(number, body) for number, body in enumerate(bodies)), next_cursor=after)


def answered(encoded: Encoded) -> Any:
    found = reply(encoded)
    assert found.error is None
    return found.answer


def refused(encoded: Encoded) -> ErrorDetail:
    found = reply(encoded)
    assert found.answer is None
    assert found.error is not None
    return found.error


def test_every_rabbitmq_takes_the_largest_answer() -> None:
    assert MAX_ANSWER_BYTES == 15 * 1024 * 1024


def test_a_list_that_fits_goes_whole() -> None:
    encoded = encode_answer(page("a", "b", after="there is more"), LARGEST, query=True)
    assert encoded.whole
    assert [item["body"] for item in answered(encoded)["items"]] == ["a", "b"]
    assert answered(encoded)["next_cursor"] == "there is more"


@pytest.mark.parametrize("text", ["x", "\x01", "é", "€", '"'])  # of one byte, of six in JSON, and in between
def test_a_list_that_is_too_large_ends_earlier(text: str) -> None:
    context = Context(f"00-{'a' * 32}-{'b' * 16}-01", {f"a{n}": "x" * 247 for n in range(16)})
    encoded = encode_answer(page(*[text * 800] * 30), LARGEST, query=True, context=context)
    assert not encoded.whole
    assert len(encoded.body) <= LARGEST
    found = answered(encoded)
    kept = len(found["items"])
    assert 1 <= kept < 30
    assert _decode(found["next_cursor"]) == (NOW - timedelta(microseconds=kept - 1), UUID(int=kept - 1))


@pytest.mark.parametrize(("more", "after"), [(("b",), None), ((), "there is more")])
def test_an_item_that_is_too_large_alone_does_not_end_the_list(more: tuple[str, ...], after: str | None) -> None:
    encoded = encode_answer(page("x" * LARGEST, *more, after=after), LARGEST, query=True)
    error = refused(encoded)
    assert error.code == "answer_too_large"
    assert f"rejection {UUID(int=0)} alone has more than the 20000 bytes" in error.message
    cursor = error.message.rpartition("cursor '")[2].removesuffix("'")
    assert _decode(cursor) == (NOW, UUID(int=0))


def test_at_the_end_of_a_list_no_cursor_is_told() -> None:
    assert "cursor" not in refused(encode_answer(page("x" * LARGEST), LARGEST, query=True)).message


def test_the_bound_is_met_to_the_byte() -> None:
    def schema(size: int) -> SignatureSchema:
        return SignatureSchema(
            signature_id=UUID(int=1),
            name="n",
            version="1",
            status=SignatureStatus.ACTIVE,
            digest="d",
            inputs={"x": "x" * size},
            outputs={},
        )

    room = LARGEST - len(encode_answer(schema(0), LARGEST, query=True, message_id="m").body)
    encoded = encode_answer(schema(room), LARGEST, query=True, message_id="m")
    assert (encoded.whole, len(encoded.body)) == (True, LARGEST)
    error = refused(encode_answer(schema(room + 1), LARGEST, query=True, message_id="m"))
    assert error.code == "answer_too_large"
    assert "20001 bytes" in error.message
    assert "it is done" not in error.message


def test_an_answer_of_yes() -> None:
    assert answered(encode_answer(Answer(value=True), LARGEST, query=True)) == {"value": True}


def test_an_error_is_told_with_its_problems() -> None:
    error = refused(encode_error(InvalidInput([Problem("a", "is missing")]), LARGEST))
    assert error.problems == (ProblemDetail(field="a", message="is missing"),)


def test_one_that_quotes_too_much_is_cut() -> None:
    encoded = encode_error(InvalidInput([Problem("é" * LARGEST, "is missing")]), LARGEST)
    assert len(encoded.body) <= LARGEST
    assert refused(encoded).code == "invalid_input"
    assert refused(encode_error(Conflict("c" * LARGEST), LARGEST)).message == "c" * 2_000


def ended(outputs: int, calls: int = 0) -> ExecutionCompleted:
    return ExecutionCompleted(
        execution_id=UUID(int=1),
        program_id=UUID(int=2),
        outputs={"answer": "x" * outputs},
        attempt=2,
        duration_ms=1.5,
        usage=Usage(calls=calls, lm_calls=(LMCall(model="m" * 100),) * calls),
    )


def test_an_event_leaves_out_its_calls_and_then_its_outputs() -> None:
    whole = encode_event(ended(1_000, 10), "acme", LARGEST, message_id="1.2")
    assert whole.whole
    assert decode_event(whole.body).data == ended(1_000, 10)

    short = encode_event(ended(1_000, 10), "acme", LARGEST, whole=1_500, message_id="1.2")
    data = decode_event(short.body).data
    assert isinstance(data, ExecutionCompleted)
    assert (data.usage.calls, data.usage.lm_calls, len(str(data.outputs["answer"]))) == (10, (), 1_000)

    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    reference = encode_event(ended(LARGEST), "acme", LARGEST, message_id="1.2", context=Context(traceparent))
    envelope = decode_event(reference.body)
    assert (envelope.id, envelope.tenant, envelope.subject) == ("1.2", "acme", str(UUID(int=1)))
    assert envelope.traceparent == traceparent
    assert isinstance(envelope.data, ExecutionEnded)
    assert (envelope.data.status, envelope.data.attempt) == ("completed", 2)
    assert not short.whole
    assert not reference.whole


def test_so_does_that_of_a_failure_with_a_long_story() -> None:
    failed = ExecutionFailed(
        execution_id=uuid7(),
        program_id=uuid7(),
        error=ErrorDetail(code="permanent", message="m" * LARGEST),
        attempt=1,
        duration_ms=1,
    )
    data = decode_event(encode_event(failed, "acme", LARGEST).body).data
    assert isinstance(data, ExecutionEnded)
    assert (data.status, data.error_code) == ("failed", "permanent")


def test_that_a_message_was_rejected_is_told_in_short() -> None:
    error = ErrorDetail(code="conflict", message="m", problems=(ProblemDetail(field="f" * LARGEST, message="m"),))
    rejected = MessageRejected(rejection_id=uuid7(), queue="q", error=error)
    data = decode_event(encode_event(rejected, "acme", LARGEST).body).data
    assert isinstance(data, MessageRejected)
    assert data.error == ErrorDetail(code="conflict", message="m")
