"""Consumes a queue over one connection, until that is lost. Settlements are sent in groups."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

import pika

from dspex.amqp.connection import connect
from dspex.amqp.errors import CONNECTION_ERRORS, describe
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.encoding import Admit, Origin, read, read_dead_letter, unpack
from workers.brokers.topology import DEAD_LETTERS, QueueType, declare

logger = logging.getLogger(__name__)

DEAD_LETTERS_AHEAD = 4
"""How many dead letters a process prefetches, so that recording a million of them leaves threads for other work."""
MOST_BYTES = 64 * 1024 * 1024
"""From so many bytes of unsettled bodies on, no further message is taken. RabbitMQ counts messages only."""


class Subscription:
    """A subscription to a queue. It belongs to pika's thread; only `settle` is thread-safe.

    Settlements gather while that thread is busy or asleep, and one call then sends them all; waking it for each took a
    quarter of a worker's CPU. Acks without an older unsettled message are sent as one (`multiple`).

    Args:
        timeout: seconds that `get` waits.

    Raises:
        CONNECTION_ERRORS: the broker cannot be reached, or refuses the connection.
    """

    def __init__(
        self,
        parameters: pika.URLParameters,
        queue_name: str,
        *,
        queue_type: QueueType,
        prefetch: int,
        timeout: float,
        max_bytes: int,
        admit: Admit | None = None,
    ) -> None:
        self._queue_name = queue_name
        self._max_bytes = max_bytes
        self._admit = admit
        self._queue_type: QueueType = queue_type
        self._settlements: deque[tuple[int, Disposition]] = deque()
        self._awake = False  # a call of _flush is scheduled
        self._gone = False
        self._timeout = timeout
        self._unsettled: dict[int, int] = {}  # the sizes of the bodies that are not settled, by tag, oldest first
        self._bytes = 0  # of all these
        self._connection = connect(parameters, max_bytes)
        try:
            self._channel = declare(self._connection, queue_type)
            most = DEAD_LETTERS_AHEAD if queue_name == DEAD_LETTERS else prefetch
            self._channel.basic_qos(prefetch_count=min(prefetch, most))
            self._deliveries: Iterator[Any] | None = self._consume()
        except CONNECTION_ERRORS:
            self.close()
            raise

    def declare(self) -> None:
        """Declare the topology again. Uses its own channel, which the broker may close because of it.

        Raises:
            CONNECTION_ERRORS: a queue or an exchange exists with other properties, or may not be declared; or the
        connection is lost.
        """
        declare(self._connection, self._queue_type).close()

    def _consume(self) -> Iterator[Any]:
        deliveries: Iterator[Any] = self._channel.consume(self._queue_name, inactivity_timeout=self._timeout)
        return deliveries

    def get(self) -> Delivery | None:
        """The next message, or None after the timeout.

        Raises:
            CONNECTION_ERRORS, StopIteration: the connection, the channel, or the queue is lost.
        """
        if self._deliveries is None:
            if self._bytes > MOST_BYTES // 2:
                self._connection.process_data_events(self._timeout)
                return None
            self._deliveries = self._consume()
        method, properties, body = next(self._deliveries)
        if method is None:
            return None
        origin = Origin(self._queue_name, properties.user_id, properties.reply_to, properties.correlation_id)
        content = unpack(properties, body)
        if self._queue_name == DEAD_LETTERS:
            message = read_dead_letter(content, origin, properties.death(), self._max_bytes)
            if message is None:
                self._channel.basic_ack(method.delivery_tag)
                return None
        else:
            message = read(content, origin, self._max_bytes, admit=self._admit)
        self._unsettled[method.delivery_tag] = len(body)
        self._bytes += len(body)
        if self._bytes > MOST_BYTES:
            self._deliveries = None
            self._channel.cancel()
        delivery = Delivery(message, self, method.delivery_tag)
        delivery.can_be_dead_lettered = properties.can_be_dead_lettered
        return delivery

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Settle a delivery soon. If the connection is lost, the broker delivers it again."""
        self._settlements.append((delivery.tag, disposition))
        if not self._awake and not self._gone:
            self._awake = True
            try:
                self._connection.add_callback_threadsafe(self._flush)
            except CONNECTION_ERRORS as error:
                logger.debug("Message %s could not be settled: %s", delivery.message_id, describe(error))

    def close(self) -> None:
        """Send pending settlements, and disconnect."""
        self._gone = True
        self._flush()
        try:
            self._connection.close()
        except CONNECTION_ERRORS as error:
            logger.debug("Closing a connection that is gone: %s", describe(error))

    def _flush(self) -> None:
        self._awake = False  # before the queue is read: a settlement that comes later schedules another call
        acked: set[int] = set()
        try:
            while self._settlements:
                tag, disposition = self._settlements.popleft()
                if disposition is Disposition.ACK:
                    acked.add(tag)
                else:
                    self._channel.basic_nack(tag, requeue=disposition is Disposition.REQUEUE)
                    self._bytes -= self._unsettled.pop(tag)
            self._ack(acked)
        except CONNECTION_ERRORS as error:
            logger.debug("Messages could not be settled, they come again: %s", describe(error))

    def _ack(self, tags: set[int]) -> None:
        up_to = 0
        for tag in self._unsettled:
            if tag not in tags:
                break
            up_to = tag
        if up_to:
            self._channel.basic_ack(up_to, multiple=True)
        for tag in sorted(tags):
            if tag > up_to:
                self._channel.basic_ack(tag)
            self._bytes -= self._unsettled.pop(tag)
