"""Between the wire and Dramatiq: a CloudEvents command is a message for the actor named by its type.

Dramatiq's own envelope is never read, so no publisher can name an actor or set an option. What cannot be decoded is
no error here: it becomes a message for the actor `REJECT`, which records it and dead-letters it.
"""

from __future__ import annotations

from typing import Any

from dramatiq import Message
from dramatiq.encoder import Encoder, MessageData
from dramatiq.errors import DecodeError
from pydantic_core import from_json

from dspex.commands import Command
from dspex.envelope import MAX_MESSAGE_BYTES, Envelope, decode_command
from dspex.errors import MalformedMessage, MessageError
from dspex.topology import queue_of

REJECT = "reject"


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


def read(body: bytes, queue_name: str, max_bytes: int = MAX_MESSAGE_BYTES) -> Message[Any]:
    """The message that a body is; where it cannot be decoded, one for the actor that rejects it. Never raises.

    Args:
        queue_name: the queue it came from; Dramatiq acks by this name, whatever the body says.
    """
    try:
        message = Message.decode(body)
        return message.copy(queue_name=queue_name, kwargs=message.kwargs | {"body": body, "queue": queue_name})
    except DecodeError as error:
        cause = error.__cause__
        reason = cause if isinstance(cause, MessageError) else MalformedMessage("the message cannot be decoded")
        message_id, message_type = _identify(body, max_bytes)
        return Message(
            queue_name=queue_name,
            actor_name=REJECT,
            args=(),
            kwargs={
                "error": reason,
                "body": body[:max_bytes],
                "body_size": len(body),
                "message_id": message_id,
                "message_type": message_type,
                "queue": queue_name,
            },
            options={},
        )


def _identify(body: bytes, max_bytes: int) -> tuple[str | None, str | None]:
    """The `id` and `type` that the body gives itself, if it can be read that far."""
    if len(body) > max_bytes:
        return None, None
    try:
        raw = from_json(body)
    except ValueError:
        return None, None
    found = (raw.get("id"), raw.get("type")) if isinstance(raw, dict) else (None, None)
    message_id, message_type = (v.replace("\x00", "�")[:512] if isinstance(v, str) else None for v in found)
    return message_id, message_type
