"""RabbitMQ, as a Dramatiq broker: consumes with its own topology, and cannot lose a message by a stale ack.

What differs from Dramatiq's own RabbitMQ broker: no delay queues (a delay there is held unacked in a worker's
memory), one connection for each queue that is consumed and none for each thread, and publishing by `AmqpPublisher`,
always with confirms.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dramatiq
import pika
import pika.exceptions
from dramatiq.errors import ConnectionClosed

from dspex.amqp_errors import address, describe, refusal
from dspex.errors import BrokerUnavailable
from dspex.publisher import Publisher
from dspex.topology import COMMANDS_EXCHANGE
from workers.brokers.encoding import Origin, read
from workers.brokers.settlement import Delivery, Settlement
from workers.brokers.topology import declare

logger = logging.getLogger(__name__)

_CONNECTION_ERRORS = (pika.exceptions.AMQPError, AssertionError, OSError)
CONNECT_TIMEOUT_SECONDS = 10.0


class AmqpBroker(dramatiq.Broker):
    """Consumes the queues of `dspex.topology`. Nothing connects before the first consumer does."""

    def __init__(self, url: str, publisher: Publisher, *, max_bytes: int) -> None:
        super().__init__(middleware=[Settlement()])
        self.queues: set[str] = set()
        self.parameters = connection_parameters(url)
        self.max_bytes = max_bytes
        self._publisher = publisher

    def declare_queue(self, queue_name: str) -> None:
        """Take note of a queue: it is declared on the server by whoever consumes it."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The names of the queues that actors consume."""
        return set(self.queues)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> dramatiq.Consumer:
        """Connect, declare, and consume a queue; `timeout` is in milliseconds.

        Raises:
            ConnectionClosed: the broker cannot be reached, or refuses.
        """
        return AmqpConsumer(self, queue_name, prefetch, timeout / 1000)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a command, and wait for the confirm.

        Raises:
            PublishError: it was not confirmed.
        """
        if delay is not None:
            raise ValueError("delay: a message cannot wait in the broker")
        self._publisher.publish(
            message.encode(),
            exchange=COMMANDS_EXCHANGE,
            routing_key=message.actor_name,
            message_id=message.message_id,
        )
        return message


class AmqpConsumer(dramatiq.Consumer):
    """Consumes one queue over one connection. Its methods other than iteration may be called by any thread."""

    def __init__(self, broker: AmqpBroker, queue_name: str, prefetch: int, timeout: float) -> None:
        self._queue_name = queue_name
        self._max_bytes = broker.max_bytes
        self._unsettled: set[int] = set()
        try:
            self._connection = pika.BlockingConnection(broker.parameters)
        except _CONNECTION_ERRORS as error:
            raise _closed(error) from None
        try:
            self._channel = self._connection.channel()
            declare(self._channel)
            self._channel.basic_qos(prefetch_count=prefetch)
            self._deliveries: Iterator[Any] = self._channel.consume(queue_name, inactivity_timeout=timeout)
        except _CONNECTION_ERRORS as error:
            self.close()
            raise _closed(error) from None

    def __next__(self) -> Delivery | None:
        try:
            method, properties, body = next(self._deliveries)
        except (*_CONNECTION_ERRORS, StopIteration) as error:
            raise _closed(error) from None
        if method is None:
            return None
        self._unsettled.add(method.delivery_tag)
        origin = Origin(self._queue_name, properties.user_id, properties.reply_to, properties.correlation_id)
        return Delivery(read(body, origin, self._max_bytes), self, method.delivery_tag)

    def ack(self, message: dramatiq.MessageProxy) -> None:
        """Ack, or give back if the actor asked for it."""
        if isinstance(message, Delivery) and message.requeue:
            self._settle(message, partial(self._channel.basic_nack, requeue=True))
        else:
            self._settle(message, self._channel.basic_ack)

    def nack(self, message: dramatiq.MessageProxy) -> None:
        """Dead-letter."""
        self._settle(message, partial(self._channel.basic_nack, requeue=False))

    def _settle(self, message: dramatiq.MessageProxy, settle: Any) -> None:
        # After a reconnection, a job of the old channel ends here with a tag of the old channel: on the new one that
        # number is another message, still running. The broker delivers the old one again; the claim knows it.
        if not isinstance(message, Delivery) or message.consumer is not self or message.tag not in self._unsettled:
            logger.info("Message %s came over a connection that is gone: it will come again.", message.message_id)
            return
        self._unsettled.discard(message.tag)
        try:
            self._connection.add_callback_threadsafe(partial(self._settle_now, settle, message.tag))
        except _CONNECTION_ERRORS as error:
            logger.info("Message %s could not be settled, it will come again: %s", message.message_id, describe(error))

    def _settle_now(self, settle: Any, tag: int) -> None:
        try:
            settle(delivery_tag=tag)
        except _CONNECTION_ERRORS as error:
            logger.info("A message could not be settled, it will come again: %s", describe(error))

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        """Nothing to do: the broker takes back what is not acked when the connection ends."""

    def close(self) -> None:
        """Send the acks that are waiting, and disconnect."""
        try:
            sent = threading.Event()
            self._connection.add_callback_threadsafe(sent.set)
            while not sent.is_set():
                self._connection.process_data_events(time_limit=1)
            self._connection.close()
        except _CONNECTION_ERRORS as error:
            logger.debug("Closing a connection that is gone: %s", describe(error))


def _closed(error: BaseException) -> Exception:
    return ConnectionClosed(describe(error))  # type: ignore[no-untyped-call]


def connection_parameters(url: str) -> pika.URLParameters:
    """pika's parameters for a URL: a heartbeat of 30 seconds where the URL sets none, and a bound on connecting."""
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 30 if parameters.heartbeat is None else parameters.heartbeat
    parameters.socket_timeout = CONNECT_TIMEOUT_SECONDS
    parameters.stack_timeout = CONNECT_TIMEOUT_SECONDS
    parameters.blocked_connection_timeout = None
    return parameters


def check(url: str) -> None:
    """Connect once, and declare the topology.

    Raises:
        BrokerUnavailable: says what to do; the URL's password is not in it.
    """
    with _channel(url) as channel:
        declare(channel)


def consumers(url: str, queue_name: str) -> int:
    """How many consumers a queue has.

    Raises:
        BrokerUnavailable: it cannot be asked.
    """
    with _channel(url) as channel:
        count: int = channel.queue_declare(queue_name, passive=True).method.consumer_count
        return count


@contextmanager
def _channel(url: str) -> Generator[Any]:
    parameters = connection_parameters(url)
    try:
        connection = pika.BlockingConnection(parameters)
        yield connection.channel()
        connection.close()
    except _CONNECTION_ERRORS as error:
        reason = refusal(error, parameters) or f"{address(parameters)}: {describe(error)}; is it running?"
        raise BrokerUnavailable(f"DSPEX_BROKER_URL: {reason}") from None
