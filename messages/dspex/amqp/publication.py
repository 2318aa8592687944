"""The message that a publisher takes, and its routing."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, event_key
from dspex.contract.envelope import Envelope


class Publication(NamedTuple):
    """A message, and where it goes.

    Attributes:
        body: a CloudEvent in structured JSON (`dspex.contract.envelope`).
        message_id: the AMQP property; by convention the id of the envelope. At most 255 bytes, like the routing key.
        correlation_id, reply_to: the AMQP properties that replies need.
        mandatory: fail with `Unroutable` if no queue takes it. False for events, which may have no listener.
    """

    body: bytes
    exchange: str
    routing_key: str
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    mandatory: bool = True


def event_publication(body: bytes, tenant: str, type_: str, message_id: str) -> Publication:
    """An event of a tenant. It may have no listener."""
    return Publication(body, EVENTS_EXCHANGE, event_key(tenant, type_), message_id, mandatory=False)


def command_publication(envelope: Envelope[Any], body: bytes, *, reply_to: str | None = None) -> Publication:
    """A command to the workers.

    Args:
        body: the envelope, encoded.
        reply_to: the queue for its answer; the envelope's id is the correlation id.
    """
    correlation_id = None if reply_to is None else envelope.id
    return Publication(body, COMMANDS_EXCHANGE, envelope.type, envelope.id, correlation_id, reply_to)
