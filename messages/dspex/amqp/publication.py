"""A message as it is given to a publisher."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, event_key
from dspex.contract.envelope import Envelope


class Publication(NamedTuple):
    """A message, and where it goes.

    Attributes:
        body: a CloudEvent in structured JSON (`dspex.contract.envelope`).
        message_id: the AMQP property, by convention the id in the envelope; at most 255 bytes, like the key.
        correlation_id, reply_to: the AMQP properties, for replies.
        mandatory: fail with `Unroutable` where no queue takes it; False for events, which nobody may listen to.
    """

    body: bytes
    exchange: str
    routing_key: str
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    mandatory: bool = True


def event_publication(body: bytes, tenant: str, type_: str, message_id: str) -> Publication:
    """An event of a tenant, whether anybody listens or not."""
    return Publication(body, EVENTS_EXCHANGE, event_key(tenant, type_), message_id, mandatory=False)


def command_publication(envelope: Envelope[Any], body: bytes, *, reply_to: str | None = None) -> Publication:
    """A command to the workers.

    Args:
        body: the envelope, encoded.
        reply_to: the queue that its answer goes to, with the envelope's id as the correlation id.
    """
    correlation_id = None if reply_to is None else envelope.id
    return Publication(body, COMMANDS_EXCHANGE, envelope.type, envelope.id, correlation_id, reply_to)
