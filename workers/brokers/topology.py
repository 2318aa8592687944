"""Declares the topology (`dspex.topology`) on RabbitMQ, with a dead-letter queue for each queue."""

from __future__ import annotations

from typing import Any, Literal

from dspex.topology import BINDINGS, EXCHANGES, QUEUES

QueueType = Literal["classic", "quorum"]

DEAD_LETTER_BYTES = 1024**3
"""Dead letters are kept up to this size for each queue, the oldest go first: the database has recorded them."""

DELIVERY_LIMIT = 2**31 - 1
"""How often a quorum queue delivers a message: always again.

Each connection that is lost counts as a delivery of every message it had prefetched, so RabbitMQ 4's default of 20
would dead-letter what never started. -1 is no limit there, and 0 on RabbitMQ 3, where each message would be
dead-lettered at its first return (tried on 3.10.8); a large number is the same on both.
"""


def dead_letter_queue(queue_name: str) -> str:
    """The queue of the dead letters of a queue, named as Dramatiq names it: `dspex.programs.XQ`."""
    return f"{queue_name}.XQ"


def declare(channel: Any, queue_type: QueueType) -> None:
    """Declare everything on a pika channel, durable. Safe to repeat.

    Raises:
        pika.exceptions.ChannelClosedByBroker: something of the same name exists with other properties.
    """
    # Classic is named too: without a type, a virtual host may have a default of its own.
    kind: dict[str, Any] = {"x-queue-type": queue_type}
    if queue_type == "quorum":
        kind["x-delivery-limit"] = DELIVERY_LIMIT
    for exchange in EXCHANGES:
        arguments = {"alternate-exchange": exchange.alternate} if exchange.alternate else None
        channel.exchange_declare(exchange.name, exchange.kind, durable=True, arguments=arguments)
    for queue in QUEUES:
        dead_letters = dead_letter_queue(queue)
        channel.queue_declare(dead_letters, durable=True, arguments=kind | {"x-max-length-bytes": DEAD_LETTER_BYTES})
        channel.queue_declare(
            queue,
            durable=True,
            arguments=kind | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead_letters},
        )
    for binding in BINDINGS:
        channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
