"""The one place where answers and events are encoded, within what the broker takes.

A list that is too large ends earlier, with a cursor; an event goes without its single LM calls, or as a reference. What
cannot be made smaller is answered with `answer_too_large`, which says what to do.
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
"""Room for the envelope around a page, with all the extension attributes there may be, and its cursor."""
MAX_ERROR_LENGTH: Final = 2_000
"""Characters of an error's text, where it is too large with all."""

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
    """A message as it goes out. `whole`: nothing had to be left out."""

    message_id: str
    body: bytes
    whole: bool = True


def encode_answer(
    answer: BaseModel, largest: int, *, query: bool, message_id: str | None = None, context: Context = NO_CONTEXT
) -> Encoded:
    """The answer to what was asked, or why it cannot be sent.

    Args:
        largest: bytes that the body may have.
        query: whether nothing else was done.
        message_id: where it may be sent more than once; a new one by default.
        context: of what was asked.
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
    """The answer that something cannot be done; cut where the error quotes too much."""
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
    """An event, as much of it as can be sent. Its routing key is that of the whole.

    Args:
        largest: bytes that the body may have.
        whole: bytes that it may have with all its fields, where that is less.
        context: of what it tells of.
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
    """Written as it is, and not by way of Python's own types."""
    if not Reply.__pydantic_complete__:  # before pydantic 2.14, what was never validated is not written inside another
        Reply.model_rebuild()
    return Reply.model_construct(answer=answer)


def _cut(detail: ErrorDetail) -> ErrorDetail:
    return ErrorDetail(code=detail.code, message=detail.message[:MAX_ERROR_LENGTH])


def _shortened(page: Page[Any], room: int) -> Page[Any]:
    """The begin of a page, and the cursor for what follows."""
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
    """The first of a page is too large by itself: who knows the cursor gets to those behind it."""
    name = _ID[type(page.items[0])]
    which = f"{name.removesuffix('_id')} {getattr(page.items[0], name)}"
    on = f"; the list goes on with cursor '{_after(page.items[0])}'" if page.next_cursor or page.items[1:] else ""
    return AnswerTooLarge(f"{which} alone has more than the {largest} bytes of an answer: {_IN_PROCESS}{on}")
