"""Converts a CloudEvents command to a Dramatiq message for the actor named by its type, and back.

Dramatiq's own envelope is never read, so no publisher can name an actor or set an option. A message that cannot be
decoded raises no error: it becomes a message for the actor `REJECT`, which records and dead-letters it.
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
"""The actors for invalid messages, and for messages that expired or were dropped before a worker got them."""


class CloudEventEncoder(Encoder):
    """A strict encoder: it accepts only known commands with a valid body."""

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes

    def encode(self, data: MessageData) -> bytes:
        """The body of a message for an actor: the envelope in its arguments."""
        envelope: Envelope[Command] = data["kwargs"]["envelope"]
        return envelope.encode(self._max_bytes)

    def decode(self, data: bytes) -> MessageData:
        """The fields of a Dramatiq message.

        Raises:
            MessageError: the message must be rejected.
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
    """The origin of a message.

    Attributes:
        queue: the queue that it was consumed from. Dramatiq acks by this name, whatever the body says.
        user_id: the AMQP property, which RabbitMQ has checked against the publisher's login.
        reply_to, correlation_id: the queue for the answer, and the id that matches it.
    """

    queue: str
    user_id: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


class Content(NamedTuple):
    """The content of a message: the body in structured JSON, or the raw body.

    Attributes:
        whole_size: the size of the whole body in bytes, if only its beginning was kept.
        flaw: why it is refused without reading its body.
        identity: its `id` and `type`, if they are not in the body.
    """

    body: bytes
    whole_size: int | None = None
    flaw: MessageError | None = None
    identity: tuple[str | None, str | None] | None = None

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.body) if self.whole_size is None else self.whole_size


def unpack(properties: Properties, body: bytes) -> Content:
    """Read the content of a message in either mode of CloudEvents. Never raises."""
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
"""Raises `Denied` if a message must not be read. Gets its origin, type, envelope's tenant, and subject's id."""


def read(
    content: Content, origin: Origin, max_bytes: int = MAX_MESSAGE_BYTES, *, admit: Admit | None = None
) -> Message[Any]:
    """Decode a content; if that fails, make a message for the actor that rejects it. Never raises.

    Args:
        admit: checks that the login may send such a message.
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
    """Make a message for the actor that records a dead letter; None if it was recorded before.

    Args:
        origin: where it was consumed: the queue of dead letters.
        death: how RabbitMQ says that it was dead-lettered.
    """
    if death is not None and death.reason == "rejected":
        return None  # a worker has dead-lettered it, and has recorded it before
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
    """Remove the traceback, which would keep everything that was read of the message, ten times its size, alive.

    Even after the message is settled, as the error and its frame refer to each other.
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
    """The `id`, `type` and `tenant` of an invalid message, as far as they can be read, and its context."""
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
    """The stored form of a name; None for an empty one."""
    return value.replace("\x00", "�")[:512] if isinstance(value, str) and value else None
