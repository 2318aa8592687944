"""Declares the topology (`dspex.amqp.topology`) on RabbitMQ, with a dead-letter queue for each queue.

dspex.executions ── rejected, expired ──> dspex.dead-letters (direct) ──> dspex.executions.XQ, for operators
                                               └──> dspex.dead-letters, for workers: they record what nobody has
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Literal

from pika.exceptions import ChannelClosedByBroker

from dspex.amqp.topology import BINDINGS, EXCHANGES, QUEUES

logger = logging.getLogger(__name__)

QueueType = Literal["classic", "quorum"]

DEAD_LETTERS = "dspex.dead-letters"
"""The dead-letter exchange of every queue, and a queue bound to it that workers consume."""

DEAD_LETTER_BYTES = 1024**3
"""The size limit of each dead-letter queue. The oldest messages are dropped first; the database has recorded them."""

DELIVERY_LIMIT = 2**31 - 1
"""The delivery limit of a quorum queue: practically none.

Each lost connection counts as a delivery of every message that it had prefetched. So RabbitMQ 4's default of 20 would
dead-letter messages that never started. On RabbitMQ 4, -1 means no limit; on RabbitMQ 3 it means 0, which dead-letters
a message at its first return (tried on 3.10.8). A large number works on both.
"""


def dead_letter_queue(queue_name: str) -> str:
    """The dead-letter queue of a queue, named like Dramatiq's: `dspex.programs.XQ`."""
    return f"{queue_name}.XQ"


def declare(connection: Any, queue_type: QueueType) -> Any:
    """Declare the durable topology over a blocking connection of pika. May be repeated. Returns an open channel.

    Raises:
        pika.exceptions.ChannelClosedByBroker: an exchange or a queue exists with other properties.
    """
    # Set for classic, too: a virtual host may have another default type.
    kind: dict[str, Any] = {"x-queue-type": queue_type}
    if queue_type == "quorum":
        kind["x-delivery-limit"] = DELIVERY_LIMIT
    channel = connection.channel()
    for exchange in EXCHANGES:
        arguments = {"alternate-exchange": exchange.alternate} if exchange.alternate else None
        channel.exchange_declare(exchange.name, exchange.kind, durable=True, arguments=arguments)
    channel.exchange_declare(DEAD_LETTERS, "direct", durable=True)
    earlier: list[str] = []
    for queue in QUEUES:
        dead_letters = dead_letter_queue(queue)
        channel.queue_declare(dead_letters, durable=True, arguments=kind | {"x-max-length-bytes": DEAD_LETTER_BYTES})
        routed = kind | {"x-dead-letter-exchange": DEAD_LETTERS, "x-dead-letter-routing-key": dead_letters}
        try:
            channel.queue_declare(queue, durable=True, arguments=routed)
        except ChannelClosedByBroker as error:
            if "inequivalent arg 'x-dead-letter-exchange' for queue" not in error.reply_text:
                raise
            channel = connection.channel()
            channel.queue_declare(queue, durable=True, arguments=routed | {"x-dead-letter-exchange": ""})
            earlier.append(queue)
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=kind)
    for queue in QUEUES:
        for bound in (dead_letter_queue(queue), DEAD_LETTERS):
            channel.queue_bind(bound, DEAD_LETTERS, dead_letter_queue(queue))
    for binding in BINDINGS:
        channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
    if earlier:
        _warn(", ".join(earlier))
    return channel


@cache
def _warn(queues: str) -> None:
    """Log a warning once per process, although each of its connections declares the topology."""
    logger.warning(
        "The queues %s were declared by an earlier version: they are used as they are, but a message that expires "
        "there is dead-lettered without a record. To replace them: let workers empty them, stop workers and producers, "
        "and delete each with `rabbitmqctl delete_queue NAME`; workers of the earlier version cannot use the new ones",
        queues,
    )
