"""Between the wire and Dramatiq: a CloudEvents command is a message for the actor named by its type.

Dramatiq's own envelope is never read, so no publisher can name an actor or set an option. What cannot be decoded is
no error here: it becomes a message for the actor `REJECT`, which records it and dead-letters it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from dramatiq import Message
from dramatiq.encoder import Encoder, MessageData
from pydantic_core import from_json

from dspex.amqp.binary_mode import identity, is_binary, structured
from dspex.amqp.properties import Death, Properties
from dspex.amqp.topology import QUEUES, queue_of
from dspex.contract.commands import Command
from dspex.contract.envelope import (
    MAX_MESSAGE_BYTES,
    NO_CONTEXT,
    TENANT_PATTERN,
    Context,
    Envelope,
    check_size,
    context_of,
    decode_command,
)
from dspex.errors import (
    Denied,
    DspexError,
    InvalidMessage,
    MalformedMessage,
    MessageError,
    MessageExpired,
    MessageUndelivered,
)

_TENANT = re.compile(TENANT_PATTERN)

REJECT = "reject"
RECORD = "record"
"""The actors of what is no command, and of what expired or was dropped before a worker had it."""


class CloudEventEncoder(Encoder):
    """The strict encoder: known commands with a valid body, and nothing else."""

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes

    def encode(self, data: MessageData) -> bytes:
        """The body of a message for an actor: the envelope that it is called with."""
        envelope: Envelope[Command] = data["kwargs"]["envelope"]
        return envelope.encode(self._max_bytes)

    def decode(self, data: bytes) -> MessageData:
        """The fields of a Dramatiq message.

        Raises:
            MessageError: the message is to be rejected.
        """
        envelope = decode_command(data, self._max_bytes)
        return {
            "queue_name": queue_of(envelope.type),
            "actor_name": envelope.type,
            "args": (),
            "kwargs": {"envelope": envelope},
            "options": {},
            "message_id": envelope.id,
        }


@dataclass(frozen=True)
class Origin:
    """Where a message came from, beside its body.

    Attributes:
        queue: the queue it was taken from; Dramatiq acks by this name, whatever the body says.
        user_id: the AMQP property, which RabbitMQ has checked against the publisher's login.
        reply_to, correlation_id: where the answer goes, and what it is matched by.
    """

    queue: str
    user_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


class Content(NamedTuple):
    """What a message says: the body of an envelope in structured JSON, or what came instead.

    Attributes:
        whole_size: the size of the whole body, where only its begin was kept.
        flaw: why it is refused before its body is looked at.
        identity: the `id` and `type` that it gives itself, where the body does not say them.
    """

    body: bytes
    whole_size: int | None = None
    flaw: MessageError | None = None
    identity: tuple[str | None, str | None] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.body) if self.whole_size is None else self.whole_size


def unpack(properties: Properties, body: bytes) -> Content:
    """What a message with these properties says, in whichever mode of CloudEvents it came. Never raises."""
    if properties.flaw is not None:
        return Content(body, properties.body_size, InvalidMessage(properties.flaw))
    if not is_binary(properties):
        return Content(body, properties.body_size)
    if len(body) < properties.body_size:
        return Content(body, properties.body_size, identity=identity(properties))
    try:
        return Content(structured(properties, body))
    except MessageError as error:
        return Content(body, properties.body_size, error, identity(properties))


Admit = Callable[[Origin, type[Command], str | None, str | None], None]
"""Raises `Denied` where a message of this origin may not be of this type, for this tenant, about this id."""


def read(
    content: Content, origin: Origin, max_bytes: int = MAX_MESSAGE_BYTES, *, admit: Admit | None = None
) -> Message[Any]:
    """The message that a content is; where it cannot be decoded, one for the actor that rejects it. Never raises.

    Args:
        admit: whether its login may send it at all.
    """
    try:
        check_size(content.size, max_bytes)
        if content.flaw is not None:
            raise content.flaw
        envelope = decode_command(content.body, max_bytes, admit=admit and partial(admit, origin))
    except Exception as error:  # noqa: BLE001 - it goes with the message
        reason = (
            error if isinstance(error, MessageError | Denied) else MalformedMessage("the message cannot be decoded")
        )
        return _rejection(REJECT, _alone(reason), content, origin, origin.queue, max_bytes)
    return Message(
        queue_name=origin.queue,
        actor_name=envelope.type,
        args=(),
        kwargs={"envelope": envelope, "body": content.body, "origin": origin},
        options={},
        message_id=envelope.id,
    )


def read_dead_letter(content: Content, origin: Origin, death: Death | None, max_bytes: int) -> Message[Any] | None:
    """What there is to do about a dead letter: a message for the actor that records it, None where it is recorded.

    Args:
        origin: where it was found: the queue of dead letters.
        death: what RabbitMQ says of it.
    """
    if death is not None and death.reason == "rejected":
        return None  # by a worker, which has recorded it before
    error: MessageError
    if death is None:
        error = MessageUndelivered(f"it was sent to {origin.queue}, where no command belongs")
    elif death.reason == "expired":
        error = MessageExpired(f"it expired while it waited in {death.queue[:100]}: see the AMQP property expiration")
    else:
        error = MessageUndelivered(f"RabbitMQ took it out of {death.queue[:100]}: {death.reason[:100]}")
    came = replace(origin, queue=death.queue) if death is not None and death.queue in QUEUES else origin
    return _rejection(RECORD, error, content, came, origin.queue, max_bytes)


def _alone(error: DspexError) -> DspexError:
    """Without where it was raised: all that was read of the message, ten times its size, would be kept with it.

    And not only for as long as the message waits: what was raised here is in a cycle with where it was.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _rejection(
    actor: str, error: DspexError, content: Content, origin: Origin, consumed: str, max_bytes: int
) -> Message[Any]:
    message_id, message_type, tenant, context = _identify(content, max_bytes)
    named = {"message_id": message_id, "message_type": message_type, "said_tenant": tenant}
    fields = {**named, "context": context, "origin": origin}
    return Message(
        queue_name=consumed,
        actor_name=actor,
        args=(),
        kwargs={"error": error, "body": content.body[:max_bytes], "body_size": content.size, **fields},
        options={},
    )


def _identify(content: Content, max_bytes: int) -> tuple[str | None, str | None, str | None, Context]:
    """The `id`, `type` and `tenant` that a message gives itself, if it can be read so far; and what is told with it."""
    if content.identity is not None:
        return _name(content.identity[0]), _name(content.identity[1]), None, NO_CONTEXT
    try:
        raw = from_json(content.body) if content.size <= max_bytes else None
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        return None, None, None, NO_CONTEXT
    tenant = _name(raw.get("tenant"))
    said = tenant if tenant and _TENANT.fullmatch(tenant) else None
    return _name(raw.get("id")), _name(raw.get("type")), said, context_of(raw)


def _name(value: object) -> str | None:
    """As it is kept; an empty one is none."""
    return value.replace("\x00", "�")[:512] if isinstance(value, str) and value else None
