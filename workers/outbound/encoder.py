"""The only place where answers and events are encoded, within the limits of the broker.

A page that is too large is cut, with a cursor for the rest. An event that is too large is sent without its list of LM
calls, or as a reference. If an answer cannot be made smaller, it is the error `answer_too_large`, which says what to
do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from dspex.contract.envelope import NO_CONTEXT, Context, wrap
from dspex.contract.events import ErrorDetail, Event, Reply
from dspex.contract.results import (
    DeliveryView,
    EndpointView,
    ExecutionView,
    Page,
    ProgramView,
    RejectedMessageView,
    SignatureView,
)
from dspex.errors import AnswerTooLarge, DspexError, MessageTooLarge
from store.database.pages import cursor_after
from workers.outbound.ended_event import Ended, reference
from workers.outbound.error_details import detail_of

SOURCE: Final = "/dspex/worker"
ENVELOPE_BYTES: Final = 8 * 1024
"""Room for the envelope of a page, with the most extension attributes, and for its cursor."""
MAX_ERROR_LENGTH: Final = 2_000
"""To this length the text of an error is cut if the whole is too large, in characters."""

_ID: Final[Mapping[type[BaseModel], str]] = {
    SignatureView: "signature_id",
    ProgramView: "program_id",
    ExecutionView: "execution_id",
    RejectedMessageView: "rejection_id",
    EndpointView: "endpoint_id",
    DeliveryView: "delivery_id",
}
_IN_PROCESS = "ask where the database is: with the command `dspex`, or `workers.local`"


class Encoded(NamedTuple):
    """An encoded message. `whole`: nothing was left out."""

    message_id: str
    body: bytes
    whole: bool = True


def encode_answer(
    answer: BaseModel, largest: int, *, query: bool, message_id: str | None = None, context: Context = NO_CONTEXT
) -> Encoded:
    """Encode an answer, or the error that it is too large.

    Args:
        largest: the largest body, in bytes.
        query: whether the command was a query, which changes nothing.
        message_id: for an answer that may be sent more than once; a new one by default.
        context: the context of the command.
    """
    told: dict[str, Any] = {"message_id": message_id, "context": context}
    try:
        return _encode(_reply(answer), largest, **told)
    except MessageTooLarge as error:
        sizes = error.message
    if isinstance(answer, Page):
        shorter = _shortened(answer, largest - ENVELOPE_BYTES)
        if shorter.items:
            return _encode(_reply(shorter), largest, **told)._replace(whole=False)
        return encode_error(_stuck(answer, largest), largest, **told)._replace(whole=False)
    done = "" if query else "it is done, but "
    too_large = AnswerTooLarge(f"{done}the answer cannot be sent ({sizes}): {_IN_PROCESS}")
    return encode_error(too_large, largest, **told)._replace(whole=False)


def encode_error(
    error: DspexError, largest: int, *, message_id: str | None = None, context: Context = NO_CONTEXT
) -> Encoded:
    """Encode an error as an answer. It is cut if it is too large."""
    detail = detail_of(error)
    try:
        return _encode(Reply(error=detail), largest, message_id=message_id, context=context)
    except MessageTooLarge:
        return _encode(Reply(error=_cut(detail)), largest, message_id=message_id, context=context)


def encode_event(
    event: Event,
    tenant: str,
    largest: int,
    *,
    whole: int | None = None,
    message_id: str | None = None,
    context: Context = NO_CONTEXT,
) -> Encoded:
    """Encode an event, or the largest part of it that fits. The routing key is always that of the whole event.

    Args:
        largest: the largest body, in bytes.
        whole: the largest body with all fields, in bytes, if that is less.
        context: the context of the command that it is about.
    """
    told: dict[str, Any] = {"tenant": tenant, "message_id": message_id, "context": context}
    try:
        return _encode(event, min(largest, whole or largest), **told)
    except MessageTooLarge:
        pass
    if isinstance(event, Ended):
        try:
            short = event.model_copy(update={"usage": event.usage.summary})
            return _encode(short, largest, **told)._replace(whole=False)
        except MessageTooLarge:
            return _encode(reference(event), largest, **told)._replace(whole=False)
    detail = getattr(event, "error", None)
    cut = event if detail is None else event.model_copy(update={"error": _cut(detail)})
    return _encode(cut, largest, **told)._replace(whole=False)


def _encode(data: Event, largest: int, *, context: Context, **told: Any) -> Encoded:
    envelope = wrap(data, source=SOURCE, traceparent=context.traceparent, extensions=context.extensions, **told)
    return Encoded(envelope.id, envelope.encode(largest))


def _reply(answer: Any) -> Reply:
    """Wrap an answer without converting it to Python objects first."""
    if not Reply.__pydantic_complete__:  # before pydantic 2.14, an unused model cannot be serialized inside another
        Reply.model_rebuild()
    return Reply.model_construct(answer=answer)


def _cut(detail: ErrorDetail) -> ErrorDetail:
    return ErrorDetail(code=detail.code, message=detail.message[:MAX_ERROR_LENGTH])


def _shortened(page: Page[Any], room: int) -> Page[Any]:
    """The beginning of a page, with the cursor for the rest."""
    kept = 0
    for item in page.items:
        room -= len(item.model_dump_json().encode()) + 1
        if room < 0:
            break
        kept += 1
    items = page.items[:kept]
    return page.model_copy(update={"items": items, "next_cursor": _after(items[-1]) if items else None})


def _after(item: Any) -> str:
    return cursor_after(item.inserted_at, getattr(item, _ID[type(item)]))


def _stuck(page: Page[Any], largest: int) -> AnswerTooLarge:
    """The error for a page whose first item alone is too large, with the cursor for the items after it."""
    name = _ID[type(page.items[0])]
    which = f"{name.removesuffix('_id')} {getattr(page.items[0], name)}"
    on = f"; the list goes on with cursor '{_after(page.items[0])}'" if page.next_cursor or page.items[1:] else ""
    return AnswerTooLarge(f"{which} alone has more than the {largest} bytes of an answer: {_IN_PROCESS}{on}")
