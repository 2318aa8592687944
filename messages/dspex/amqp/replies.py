"""The reply queue of a client: one queue, consumed by one thread; answers are matched by correlation id."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from dspex.amqp.connection import connect
from dspex.amqp.errors import CONNECTION_ERRORS, SILENT, address, cause, permission, refusal
from dspex.backoff import Backoff
from dspex.contract.envelope import LARGEST_ANSWER_BYTES, decode_event
from dspex.contract.events import Reply
from dspex.errors import BrokerUnavailable, MessageError

logger = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = 0.5, 10.0
"""Seconds between attempts to get a reply queue (`Backoff`)."""

LOOK_SECONDS = 0.5
"""How often the thread looks whether the client is closed, where it was not woken."""


class Expecting(Protocol):
    """Waits for an answer. Called in the thread of the reply queue."""

    def take(self, reply: Reply) -> None:
        """Take the answer."""
        ...

    def fail(self, error: BaseException) -> None:
        """Note that the answer cannot be read, or will never come."""
        ...


class _Left(Exception):
    """The client is closed: the wait for answers ends at once."""


def _leave() -> None:
    raise _Left


class Replies:
    """The reply queue of a client. Connects at the first request, and reconnects with a new queue.

    An answer is dropped if nobody waits for it any more, or if it went to an earlier queue.

    Args:
        parameters: of the connection to the broker.
        replaced: called when a new queue has replaced an earlier one, whose answers are lost.
    """

    def __init__(self, parameters: pika.URLParameters, replaced: Callable[[], None]) -> None:
        self._parameters = parameters
        self._replaced = replaced
        self._queue = ""
        self._expecting: weakref.WeakValueDictionary[str, Expecting] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: BlockingConnection | None = None
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)  # used by the thread only
        self._refusal: str | None = None
        self._trouble = SILENT

    @property
    def queue(self) -> str | None:
        """The name of the current reply queue; None while there is none."""
        return self._queue if self._ready.is_set() else None

    def expect(self, correlation_id: str, who: Expecting, deadline: float) -> str:
        """Have the answer with this correlation id passed to `who`. Returns the queue to name as `reply_to`.

        Args:
            deadline: how long to wait for a queue, in seconds of `time.monotonic`.

        Raises:
            BrokerUnavailable: there was no queue by the deadline, or the broker refused the login or the queue.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspex-replies", daemon=True)
                self._thread.start()
        while not self._ready.wait(0.05):
            if self._refusal is not None:
                raise BrokerUnavailable(self._refusal)
            if self._closed.is_set() or time.monotonic() > deadline:
                raise BrokerUnavailable(f"{address(self._parameters)} cannot be reached: {self._trouble}")
        queue = self._queue
        self._expecting[correlation_id] = who
        return queue

    def close(self) -> None:
        """End the thread. Those who still wait for an answer get an error."""
        self._closed.set()
        for who in list(self._expecting.values()):
            who.fail(BrokerUnavailable("the client is closed; what it asked for may still be carried out"))
        if self._connection is not None:
            with suppress(*CONNECTION_ERRORS):  # it is closed already, or lost
                self._connection.add_callback_threadsafe(_leave)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._consume()
            except _Left:
                break
            except CONNECTION_ERRORS as error:
                self._trouble = cause(error, self._parameters)
                self._refusal = self._refused(error)
                logger.info("There is no reply queue; reconnecting: %s", self._refusal or self._trouble)
            except Exception:
                logger.exception("The reply queue failed; it will be replaced.")
            finally:
                self._ready.clear()
            self._closed.wait(self._backoff.failed())

    def _refused(self, error: BaseException) -> str | None:
        """Why the broker will refuse us however often we retry; None where a retry may help."""
        missing = permission(error, self._parameters)
        return f"{address(self._parameters)}: {missing}" if missing else refusal(error, self._parameters)

    def _consume(self) -> None:
        self._connection = connection = connect(self._parameters, LARGEST_ANSWER_BYTES)
        try:
            self._take_from(connection.channel())
        finally:
            with suppress(*CONNECTION_ERRORS):  # the connection may be lost already
                connection.close()

    def _take_from(self, channel: BlockingChannel) -> None:
        before, self._queue = self._queue, channel.queue_declare("", exclusive=True).method.queue
        replies = channel.consume(self._queue, auto_ack=True, inactivity_timeout=LOOK_SECONDS)
        self._refusal = None
        self._backoff.succeeded()
        self._ready.set()
        if before:
            self._replaced()
        for method, properties, body in replies:
            if self._closed.is_set():
                break
            if method is not None and properties is not None and body is not None:
                self._take(properties.correlation_id, body)

    def _take(self, correlation_id: Any, body: bytes) -> None:
        who = self._expecting.pop(correlation_id, None)
        if who is None:
            return
        try:
            reply = decode_event(body, LARGEST_ANSWER_BYTES).data
        except MessageError as error:
            who.fail(error)
            return
        if isinstance(reply, Reply):
            try:
                who.take(reply)
            except Exception as error:  # noqa: BLE001  an answer that is none must not end the thread
                who.fail(error)
