"""Declares the topology (`dspex.topology`) on RabbitMQ, with a dead-letter queue for each queue."""

from __future__ import annotations

from typing import Any

from dspex.topology import BINDINGS, EXCHANGES, QUEUES

DEAD_LETTER_BYTES = 1024**3
"""Dead letters are kept up to this size for each queue, the oldest go first: the database has recorded them."""


def dead_letter_queue(queue_name: str) -> str:
    """The queue of the dead letters of a queue, named as Dramatiq names it: `dspex.programs.XQ`."""
    return f"{queue_name}.XQ"


def declare(channel: Any) -> None:
    """Declare everything on a pika channel, durable. Safe to repeat.

    Raises:
        pika.exceptions.ChannelClosedByBroker: something of the same name exists with other properties.
    """
    for exchange in EXCHANGES:
        arguments = {"alternate-exchange": exchange.alternate} if exchange.alternate else None
        channel.exchange_declare(exchange.name, exchange.kind, durable=True, arguments=arguments)
    for queue in QUEUES:
        dead_letters = dead_letter_queue(queue)
        channel.queue_declare(dead_letters, durable=True, arguments={"x-max-length-bytes": DEAD_LETTER_BYTES})
        channel.queue_declare(
            queue,
            durable=True,
            arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead_letters},
        )
    for binding in BINDINGS:
        channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
