"""One connection to RabbitMQ in one thread: sends what other threads submit, pipelined, and completes the futures.

All pika code runs in the thread of the link. Other threads touch only the queue of pending messages, under `_room`. The
link reconnects while messages wait, and not while there is nothing to send. pika 1.4.4 drops a write to a broken socket
without an error, so only a confirm counts; and it calls a channel's close callback before the connection's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pika import SelectConnection, URLParameters, exceptions
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.spec import Basic

from dspex.amqp.confirms import Outgoing, Unconfirmed
from dspex.amqp.connection import PublishingConnection
from dspex.amqp.errors import (
    SILENT,
    address,
    cause,
    closed_channel_error,
    refusal,
    refused_route,
    size_limit,
    transient,
)
from dspex.amqp.properties import Properties
from dspex.amqp.refusals import Refusals
from dspex.backoff import Backoff, doubled
from dspex.errors import BrokerUnavailable, NotDeclared, PublishError, QueueFull, TooLargeForBroker, Unroutable

logger = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.1, 5.0
SWEEP = 0.1
GOODBYE = 2.0
FIRST_REST, LAST_REST = 0.05, 1.0
"""Seconds between attempts to connect (`Backoff`), between checks of deadlines, and for an orderly close.
The last two: between attempts to send a message that the broker had no room for.
"""


class Link:
    """Takes messages and completes their futures. Starts its thread at once, and connects at the first message.

    Args:
        patient: send a message that the broker had no room for again, until its deadline.
        on_undeclared: see `AmqpPublisher`.
    """

    def __init__(
        self,
        parameters: URLParameters,
        window: int,
        *,
        patient: bool = False,
        on_undeclared: Callable[[], None] | None = None,
    ) -> None:
        self._parameters = parameters
        self._on_undeclared = on_undeclared
        self._where = address(parameters)
        # Workers can trust it, as RabbitMQ checks it (https://www.rabbitmq.com/docs/validated-user-id).
        self._user_id: str | None = getattr(parameters.credentials, "username", None)
        self._window = window
        self._patient = patient
        self._room = threading.Condition()
        self._unsettled = 0  # futures not done, pending or sent
        self._pending: deque[Outgoing] = deque()
        self._awake = False  # a call of _drain is scheduled
        self._stopped = False
        # Everything below is used by the link's thread only.
        self._ioloop = IOLoop()
        self._connection: PublishingConnection | None = None
        self._channel: Channel | None = None
        self._unconfirmed = Unconfirmed()
        self._refused: list[Outgoing] = []  # to be sent again after a pause
        self._refusal: tuple[type[PublishError], str] | None = None  # of the messages refused last
        self._rests = 0
        self._resting = False
        self._refusals = Refusals()
        self.limit: int | None = None  # of this connection: see `Publisher.limit`
        self._blocked = False
        self._sweeping = False
        self._retrying = False
        self._denied: str | None = None  # why the login was refused, until the next attempt
        self._told: str | None = None
        self._closing = False
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._trouble = SILENT
        self._thread = threading.Thread(target=self._run, name="dspex-publisher", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it takes messages."""
        return not self._stopped

    def submit(self, message: Outgoing) -> None:
        """Queue a message as soon as the window has room.

        Raises:
            BrokerUnavailable: the window had no room by the message's deadline, or the publisher is closed.
        """
        message.future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        with self._room:
            if self._unsettled >= self._window:
                patience = message.deadline - time.monotonic()
                if not self._room.wait_for(lambda: self._unsettled < self._window or self._stopped, patience):
                    raise BrokerUnavailable(f"{self._window} messages are unconfirmed already: {self.trouble()[1]}")
            if self._stopped:
                raise BrokerUnavailable("the publisher is closed")
            self._unsettled += 1
            self._pending.append(message)
            wake, self._awake = not self._awake, True
        if wake:
            self._ioloop.add_callback_threadsafe(self._drain)

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for confirms, fail the other messages, disconnect, and end the thread."""
        with self._room:
            self._room.wait_for(lambda: self._unsettled == 0 or self._stopped, timeout)
        self._ioloop.add_callback_threadsafe(self._disconnect)
        if threading.current_thread() is not self._thread:
            self._thread.join(GOODBYE + 1)

    def trouble(self) -> tuple[type[PublishError], str]:
        """Why messages are not confirmed now: an error class, and one line for people."""
        if self._blocked:
            return BrokerUnavailable, f"{self._where} takes no messages now (memory or disk alarm)"
        if self._refusal is not None:
            return self._refusal
        if self._channel is None:
            return BrokerUnavailable, f"no connection to {self._where}: {self._trouble}"
        return BrokerUnavailable, f"{self._where} does not answer"

    # Everything below runs in the link's thread.

    def _run(self) -> None:
        try:
            self._ioloop.start()
        except Exception:
            logger.exception("the publisher's thread failed; the next message starts another")
        finally:
            with self._room:
                self._stopped = True
                self._room.notify_all()
            left = [*self._unconfirmed.take_all(), *self._refused, *self._pending]
            self._fail(left, BrokerUnavailable, "the publisher ended before the broker confirmed the message")
            self._ioloop.close()

    def _drain(self) -> None:
        """Write every pending message, unless the broker takes none now."""
        self._awake = False  # before the queue is read: a message that comes later schedules another call
        if not self._sweeping:
            self._sweeping = True
            self._ioloop.call_later(SWEEP, self._sweep)
        if self._channel is None:
            self._connect()
        elif self._connection is not None and not self._blocked:
            with self._connection.gathered():
                while self._pending:
                    self._write(self._connection, self._channel, self._pending.popleft())

    def _write(self, connection: PublishingConnection, channel: Channel, message: Outgoing) -> None:
        sent = message.publication
        if self._refusals:
            known = self._refusals.find(sent.exchange, sent.routing_key, time.monotonic())
            if known is not None:
                (self._refuse if known[0] is NotDeclared else self._fail)([message], *known)
                return
        if self.limit is not None and len(sent.body) > self.limit:
            self._fail_too_large(message, self.limit)
            return
        try:
            connection.publish(channel, sent, self._user_id)
        except exceptions.ShortStringTooLong:  # raised before anything is written, so no delivery tag was used
            self._fail([message], PublishError, "exchange, routing key and ids are limited to 255 bytes")
        else:
            self._unconfirmed.add(message)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        settled = self._unconfirmed.settle(method.delivery_tag, method.multiple)
        if isinstance(method, Basic.Nack):
            text = "not stored (nack): a queue for it is full (a length limit with reject-publish), or has failed"
            self._refuse(settled, QueueFull, text)
            return
        stored = [message for message in settled if not message.returned]
        for message in stored:
            message.future.set_result(None)
        if stored:
            self._rests, self._refusal = 0, None
            self._release(len(stored))
        for message in settled:
            if message.returned:
                sent = message.publication
                route = f"exchange {sent.exchange!r} for {sent.routing_key!r}"
                advice = "start a worker, or run `dspex declare`"
                self._refuse([message], Unroutable, f"no queue is bound to {route}: {advice}")

    def _on_return(self, _channel: Channel, method: Any, properties: Properties, body: bytes) -> None:
        self._unconfirmed.mark_returned(method.exchange, method.routing_key, properties.message_id, body)

    def _refuse(self, messages: Sequence[Outgoing], error: type[PublishError], text: str) -> None:
        """Fail messages that the broker has no room for; a patient link sends them again after a pause."""
        if not self._patient:
            self._fail(messages, error, text)
            return
        self._refusal = error, text
        for message in messages:
            message.refused = self._refusal
        self._refused.extend(messages)
        if not self._resting:
            self._resting = True
            self._ioloop.call_later(doubled(FIRST_REST, LAST_REST, self._rests), self._send_again)
            self._rests += 1

    def _send_again(self) -> None:
        self._resting = False
        again, self._refused = self._refused, []
        self._requeue(again)
        self._drain()

    def _fail(self, messages: Sequence[Outgoing], error: type[PublishError], text: str) -> None:
        for message in messages:
            message.future.set_exception(error(text))  # one error each: raising an exception changes its traceback
        self._release(len(messages))

    def _fail_too_large(self, message: Outgoing, limit: int) -> None:
        size = len(message.publication.body)
        text = f"the message has {size} bytes; {self._where} takes {limit} (max_message_size in rabbitmq.conf)"
        self._fail([message], TooLargeForBroker, text)

    def _release(self, count: int) -> None:
        with self._room:
            self._unsettled -= count
            self._room.notify_all()

    def _sweep(self) -> None:
        """Fail the messages whose deadline has passed, whether sent or not."""
        now = time.monotonic()
        expired = self._unconfirmed.take_expired(now)
        expired += [message for message in self._refused if message.deadline <= now]
        self._refused = [message for message in self._refused if message.deadline > now]
        with self._room:
            late = [message for message in self._pending if message.deadline <= now]
            if late:
                kept = [message for message in self._pending if message.deadline > now]
                self._pending.clear()
                self._pending.extend(kept)
            self._sweeping = self._unsettled > len(expired) + len(late)
        for message in (*expired, *late):
            error, text = message.refused or self.trouble()
            self._fail([message], error, f"not confirmed in time: {text}")
        if self._sweeping:
            self._ioloop.call_later(SWEEP, self._sweep)

    def _requeue(self, messages: list[Outgoing]) -> None:
        """Put these messages back to the front of the queue, in their order."""
        for message in messages:
            message.returned = False
        self._pending.extendleft(reversed(messages))

    # The life of the connection: connect → opened → channel → ready → lost → connect.

    def _connect(self) -> None:
        if self._denied is not None:  # refused a moment ago
            with self._room:
                waiting = list(self._pending)
                self._pending.clear()
            self._fail(waiting, BrokerUnavailable, self._denied)
        if self._connection is None and not self._retrying and self._pending:
            self._connection = PublishingConnection(
                self._parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_lost,
                on_close_callback=self._on_lost,
                custom_ioloop=self._ioloop,
            )

    def _on_open(self, connection: SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready(channel))
        if self._connection is not None:
            self._connection.on_ack = channel.channel_number, self._on_confirm

    def _on_ready(self, channel: Channel) -> None:
        self._channel = channel
        self._unconfirmed = Unconfirmed()
        self._backoff.succeeded()
        self._told = None
        logger.info("connected to %s", self._where)
        self._drain()

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        if not blocked:
            self._drain()

    def _on_channel_closed(self, _channel: Channel, reason: Exception) -> None:
        """Only the text of the reason tells which message made the broker close the channel."""
        self._channel = None
        if not isinstance(reason, exceptions.ChannelClosedByBroker):
            return  # the connection closes, too: `_on_lost` follows
        sent = self._unconfirmed.take_all()
        self._sort_out(sent, reason)
        if self._connection is not None and self._connection.is_open:
            self._connection.channel(on_open_callback=self._on_channel_open)

    def _sort_out(self, sent: list[Outgoing], reason: exceptions.ChannelClosedByBroker) -> None:
        """Fail the messages that made the broker close the channel, and send the others again."""
        limit = size_limit(reason)
        if limit is not None:
            self.limit = limit
            self._requeue(sent)  # `_write` fails those that are too large
            return
        error, text = closed_channel_error(reason, self._parameters)
        route = refused_route(reason)
        named = [message for message in sent if route and route.covers(*message.publication[1:3])]
        if named:
            self._requeue([message for message in sent if message not in named])
        guilty = named or sent  # if in doubt fail them all: a poisonous message would close the channel for ever
        if error is NotDeclared:  # the exchange may be there later
            self._refuse(guilty, error, text)
        else:
            self._fail(guilty, error, text)
        if route is not None:
            self._refusals.note(route, error, text, time.monotonic())
        if error is NotDeclared and self._on_undeclared is not None:
            self._on_undeclared()

    def _on_lost(self, _connection: SelectConnection, error: Exception) -> None:
        self._connection = self._channel = self._refusal = None
        self.limit = None  # the next connection may lead to another broker
        self._blocked = False
        self._trouble = cause(error, self._parameters)
        sent = self._unconfirmed.take_all()
        refused = refusal(error, self._parameters)
        if self._closing:
            self._requeue(sent)
            self._ioloop.stop()
        elif refused:
            with self._room:
                waiting = [*self._refused, *self._pending]
                self._refused.clear()
                self._pending.clear()
            self._fail([*sent, *waiting], BrokerUnavailable, refused)
        elif transient(error):
            self._requeue(sent)
        else:
            self._fail(sent, PublishError, f"the broker closed the connection: {self._trouble}")
        if not self._closing:
            self._denied = refused
            self._retry_later()

    def _retry_later(self) -> None:
        pause = self._backoff.failed()
        self._retrying = True
        if self._pending and self._trouble != self._told:
            self._told = self._trouble
            logger.warning("no connection to %s: %s; next attempt in %.1f s", self._where, self._trouble, pause)
        self._ioloop.call_later(pause, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._denied = None
        self._connect()

    def _disconnect(self) -> None:
        self._closing = True
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            self._ioloop.call_later(GOODBYE, self._ioloop.stop)
        else:
            self._ioloop.stop()  # pika 1.4.4 raises an AssertionError when it is closed while it connects
