"""Publishing with confirms: the port, and its implementation for RabbitMQ.

What every publisher promises, and `tests/contract/publisher_contract.py` checks:

- **A future that is done without an exception means stored.** The broker has confirmed the message: it is in every
  queue bound for it, on disk where the queue is durable. Where `mandatory`, that is at least one queue.
- **Nothing is lost in silence.** A message is confirmed, or its future fails with a `PublishError`: `Unroutable` (no
  queue bound), `NotDeclared` (no such exchange), `PublishDenied` (the login may not), `QueueFull`,
  `TooLargeForBroker` (which costs no other message anything but time), `BrokerUnavailable` (not confirmed before the
  timeout, or the login was refused), or `PublishError` itself (the broker refused the
  message). What is refused over and over fails at once for some seconds, unsent: it would hold up all others. After a
  failure it may still be there: publish it again.
- **A message may arrive twice.** What was not confirmed when a connection broke is sent again by itself until its
  timeout. The id in every message makes that harmless: workers run one id once.
- **Messages of one thread arrive in order**, save those sent again.
- **Bounded.** At most `window` messages are unconfirmed; `submit` blocks while they are, until the timeout.
- **Thread-safe**, and safe in the child of a fork, which gets a connection of its own. Futures from before a fork are
  completed in the parent only.
- **Futures complete in the publisher's thread**: a callback on one must be short and must not wait for another.
- Once submitted, a message cannot be cancelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from ssl import SSLContext
from typing import Protocol

from dspex.amqp.confirms import Outgoing
from dspex.amqp.link import Link
from dspex.amqp.publication import Publication
from dspex.amqp.url import amqp_parameters
from dspex.errors import BrokerUnavailable, PublishError
from dspex.forks import renew_in_child

DEFAULT_WINDOW = 1000
DEFAULT_TIMEOUT = 30.0


class Publisher(Protocol):
    """Puts messages on an exchange and knows when they are safe. The promises are at the top of this module."""

    @property
    def limit(self) -> int | None:
        """The largest body that the broker takes, in bytes; None while it has not refused any over its size."""
        ...

    def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
        """Start publishing a message; its future says when it is stored.

        Args:
            timeout: seconds until the future fails; the publisher's own timeout by default.

        Raises:
            BrokerUnavailable: the window of unconfirmed messages stayed full until the timeout, or the publisher is
                closed. The message was not sent.
        """
        ...

    def publish(self, publication: Publication, *, timeout: float | None = None) -> None:
        """Publish a message and wait until it is stored. Arguments as in `submit`.

        Raises:
            PublishError: one of its subclasses says why it is not known to be stored.
        """
        ...

    def close(self, timeout: float | None = None) -> None:
        """Wait until all is confirmed, at most `timeout` seconds, fail the rest, disconnect. May be called again."""
        ...


class AmqpPublisher:
    """A `Publisher` for RabbitMQ: one connection in one thread of its own, confirms pipelined.

    The thread starts and connects at the first message; it reconnects while messages wait, 0.1 s to 5 s apart: ever
    later, until a connection has held for a while. What comes between two attempts of a login that was refused fails.

    Args:
        url: `amqp://user:password@host:5672/vhost`, with `?heartbeat=` in seconds (30 by default, 0 for none; a
            silent broker is noticed within two, 12 s at the least) and the others of `dspex.amqp.url.PARAMETERS`.
        window: how many messages may be unconfirmed.
        timeout: seconds a message has to be confirmed, from `submit` on.
        ssl_context: for `amqps://`; by default the system's authorities are trusted.
        name: of the connection, in RabbitMQ's lists.
        patient: a queue that is full, and an exchange or a queue that is not there yet, fail no message before its
            timeout: it is sent again, up to a second later.
        on_undeclared: called when the broker says that an exchange is not there, in the publisher's thread: it may wait
            for nothing.

    Raises:
        SettingsError: the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        window: int = DEFAULT_WINDOW,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_context: SSLContext | None = None,
        name: str = "dspex publisher",
        patient: bool = False,
        on_undeclared: Callable[[], None] | None = None,
    ) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self._parameters = amqp_parameters(url, name, ssl_context)
        self._window = window
        self._patient = patient
        self._on_undeclared = on_undeclared
        self._timeout = timeout
        self._closed = False
        self._link: Link | None = None
        self._starting = threading.Lock()
        renew_in_child(self)

    def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
        """See `Publisher.submit`."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        message = Outgoing(publication, deadline)
        self._running_link().submit(message)
        return message.future

    def publish(self, publication: Publication, *, timeout: float | None = None) -> None:
        """See `Publisher.publish`."""
        self.submit(publication, timeout=timeout).result()

    def close(self, timeout: float | None = None) -> None:
        """See `Publisher.close`; the publisher's own timeout by default."""
        with self._starting:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close(self._timeout if timeout is None else timeout)

    def _running_link(self) -> Link:
        link = self._link
        if link is not None and link.running:
            return link
        with self._starting:
            if self._closed:
                raise BrokerUnavailable("the publisher is closed: make a new one")
            if self._link is None or not self._link.running:
                self._link = Link(
                    self._parameters, self._window, patient=self._patient, on_undeclared=self._on_undeclared
                )
            return self._link

    @property
    def limit(self) -> int | None:
        """See `Publisher.limit`."""
        link = self._link
        return None if link is None else link.limit

    def trouble(self) -> tuple[type[PublishError], str]:
        """Why what is not confirmed yet is not: the error, and one line for people."""
        link = self._link
        return (BrokerUnavailable, "the publisher is closed") if link is None else link.trouble()

    def _start_anew(self) -> None:
        self._link = None  # the parent's socket is left be
        self._starting = threading.Lock()
