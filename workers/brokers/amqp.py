"""RabbitMQ as a Dramatiq broker, with its own topology. It cannot lose a message by a stale ack.

Differences to Dramatiq's own RabbitMQ broker: it has no delay queues (which keep delayed messages unacked in a worker's
memory), it uses one connection for each consumed queue and none for each thread, and it publishes by `AmqpPublisher`,
always with confirms.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import dramatiq
import pika
import pika.exceptions

from dspex.amqp.connection import server_properties
from dspex.amqp.errors import CONNECTION_ERRORS, INTERNAL_ERROR
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.amqp.url import amqp_parameters
from dspex.errors import BrokerUnavailable
from workers.brokers.delivery import Delivery
from workers.brokers.encoding import Admit
from workers.brokers.outage import Outage
from workers.brokers.reasons import explain, weakness
from workers.brokers.settlement import Settlement, SettlingConsumer
from workers.brokers.subscription import Subscription
from workers.brokers.topology import QueueType, declare

CONNECT_TIMEOUT_SECONDS = 10.0
DECLARE_SECONDS = 30.0
SOON_SECONDS = 1.0
"""How often a consumer declares the topology again, and how soon at the earliest after something was missing."""


class AmqpBroker(dramatiq.Broker):
    """Consumes the queues of `dspex.amqp.topology`. Connects with the first consumer.

    Args:
        ahead: how many messages of a queue are prefetched, where it is not as many as its consumer asks for.
    """

    def __init__(
        self,
        url: str,
        publisher: Publisher,
        *,
        max_bytes: int,
        queue_type: QueueType = "classic",
        name: str = "dspex worker",
        admit: Admit | None = None,
        undeclared: threading.Event | None = None,
        ahead: Mapping[str, int] | None = None,
    ) -> None:
        self.undeclared = undeclared or threading.Event()
        """Set when an exchange or a queue was missing; a consumer then declares the topology again."""
        self.settlement = Settlement()
        super().__init__(middleware=[self.settlement])
        self.queues: set[str] = set()
        self.parameters = connection_parameters(url, name)
        self.queue_type: QueueType = queue_type
        self.max_bytes = max_bytes
        self.admit = admit
        self.ahead = ahead or {}
        self._publisher = publisher

    def declare_queue(self, queue_name: str) -> None:
        """Register a queue. Its consumer declares it on the server."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The names of the queues that actors consume."""
        return set(self.queues)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> dramatiq.Consumer:
        """Consume a queue as soon as the broker is reachable. `timeout` is in milliseconds."""
        return AmqpConsumer(self, queue_name, self.ahead.get(queue_name, prefetch), timeout / 1000)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a command, and wait for the confirm.

        Raises:
            PublishError: the command was not confirmed.
        """
        if delay is not None:
            raise ValueError("delay: a message cannot wait in the broker")
        self._publisher.publish(
            Publication(
                message.encode(),
                exchange=COMMANDS_EXCHANGE,
                routing_key=message.actor_name,
                message_id=message.message_id,
            )
        )
        return message


class AmqpConsumer(SettlingConsumer):
    """Consumes one queue, and reconnects by itself.

    Dramatiq would reconnect, too, but with a fixed pause of 3 seconds and a critical log line for each try.
    """

    def __init__(self, broker: AmqpBroker, queue_name: str, prefetch: int, timeout: float) -> None:
        self._broker = broker
        self._subscribe = partial(
            Subscription,
            broker.parameters,
            queue_name,
            queue_type=broker.queue_type,
            prefetch=prefetch,
            timeout=timeout,
            max_bytes=broker.max_bytes,
            admit=broker.admit,
        )
        self._timeout = timeout
        self._subscription: Subscription | None = None
        self._outage = Outage(f"Queue {queue_name}")
        self._topology = Outage("What exchanges and queues there should be")
        self._declared = 0.0  # time of the last declaration
        self._next_try = time.monotonic()
        self._closed = threading.Event()

    def __next__(self) -> Delivery | None:
        try:
            if self._subscription is not None:
                now = time.monotonic()
                missing = self._broker.undeclared.is_set() and now - self._declared >= SOON_SECONDS
                if missing or now - self._declared >= DECLARE_SECONDS:
                    self._declare(self._subscription, now)
                return self._subscription.get()
            pause = self._next_try - time.monotonic()
            if pause > 0:
                self._closed.wait(min(pause, self._timeout))
                return None
            self._subscription = self._subscribe()
            self._declared = time.monotonic()
            self._outage.end()
        except (*CONNECTION_ERRORS, StopIteration) as error:
            self._lose(error)
        return None

    def _declare(self, subscription: Subscription, now: float) -> None:
        """Declare the topology again, which restores only what was deleted meanwhile."""
        self._declared = now
        self._broker.undeclared.clear()
        try:
            subscription.declare()
        except pika.exceptions.ChannelClosedByBroker as error:
            self._topology.begin(explain(error, self._broker.parameters, self._broker.queue_type))
        else:
            self._topology.end()

    def _lose(self, error: BaseException) -> None:
        lost, self._subscription = self._subscription, None
        reason = explain(error, self._broker.parameters, self._broker.queue_type)
        self._next_try = time.monotonic() + self._outage.begin(reason)
        if lost is not None:
            lost.close()
            self._broker.settlement.forget(lost)

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        """Does nothing: RabbitMQ requeues unacked messages when the connection ends."""

    def close(self) -> None:
        """Send pending settlements, and disconnect."""
        self._closed.set()
        if self._subscription is not None:
            self._subscription.close()


def connection_parameters(url: str, name: str = "dspex") -> pika.URLParameters:
    """pika's parameters for a URL, with limits for noticing silence (two heartbeats) and for connecting.

    Args:
        name: of the connection, as RabbitMQ lists it.
    """
    parameters = amqp_parameters(url, name)
    parameters.socket_timeout = CONNECT_TIMEOUT_SECONDS
    parameters.stack_timeout = CONNECT_TIMEOUT_SECONDS
    parameters.blocked_connection_timeout = None
    return parameters


def check(url: str, queue_type: QueueType = "classic") -> str | None:
    """Connect once, and declare the topology.

    Returns:
        A warning about this broker for operators, in one line, or None.

        Raises:
        BrokerUnavailable: the broker cannot be used. The text says what to do, without the URL's password.
    """
    with _connection(url, queue_type) as connection:
        declare(connection, queue_type)
        return weakness(server_properties(connection))


def consumers(url: str, queue_name: str) -> int:
    """How many consumers a queue has.

    Raises:
        BrokerUnavailable: the broker cannot be reached.
    """
    with _connection(url) as connection:
        count: int = connection.channel().queue_declare(queue_name, passive=True).method.consumer_count
        return count


def is_there(url: str, queue_name: str) -> bool:
    """Whether a queue, or a consumer of direct reply-to, exists; False if the broker cannot be reached."""
    try:
        consumers(url, queue_name)
    except BrokerUnavailable:
        return False
    return True


def can_read(url: str, queue_name: str) -> bool:
    """Whether the broker can parse a name of direct reply-to, even if nobody waits there.

    Raises:
        BrokerUnavailable: the broker cannot be reached.
    """
    parameters = connection_parameters(url)
    try:
        with pika.BlockingConnection(parameters) as connection:
            connection.channel().queue_declare(queue_name, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return True
    except CONNECTION_ERRORS as error:
        if isinstance(error, pika.exceptions.ConnectionClosedByBroker) and error.reply_code == INTERNAL_ERROR:
            return False
        raise BrokerUnavailable(explain(error, parameters, "classic")) from None
    return True


@contextmanager
def _connection(url: str, queue_type: QueueType = "classic") -> Generator[Any]:
    parameters = connection_parameters(url)
    try:
        with pika.BlockingConnection(parameters) as connection:
            yield connection
    except CONNECTION_ERRORS as error:
        raise BrokerUnavailable(explain(error, parameters, queue_type)) from None
