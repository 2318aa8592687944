"""The queues of `dspex.amqp.topology` on a RabbitMQ that a test has to itself: their names are fixed."""

from __future__ import annotations

from typing import get_args

import pika

from dspex.amqp.topology import QUEUES
from dspex.errors import BrokerUnavailable
from workers.brokers import amqp
from workers.brokers.topology import DEAD_LETTERS, QueueType, dead_letter_queue

QUEUE_TYPES: tuple[QueueType, ...] = get_args(QueueType)


def declare_empty(url: str, queue_type: QueueType = "classic") -> None:
    """The topology with empty queues, of whatever type they were before.

    They are purged where the type is right. RabbitMQ 3.10 has lost sight of a quorum queue that was deleted and
    declared again when it is killed in the next seconds.
    """
    try:
        amqp.check(url, queue_type)
    except BrokerUnavailable:
        _each(url, "queue_delete")
        amqp.check(url, queue_type)
    _each(url, "queue_purge")


def _each(url: str, method: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            getattr(channel, method)(queue)
            getattr(channel, method)(dead_letter_queue(queue))
        getattr(channel, method)(DEAD_LETTERS)


def ready(url: str, queue: str) -> int:
    """How many messages wait in a queue, delivered to nobody."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        count: int = connection.channel().queue_declare(queue, passive=True).method.message_count
        return count
