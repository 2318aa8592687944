"""Publishing with confirms: the port, and its implementation for RabbitMQ.

What every publisher promises, and `tests/contract/publisher_contract.py` checks:

- **A future that is done without an exception means stored.** The broker has confirmed the message: it is in every
  queue bound for it, and on disk if the queue is durable. A `mandatory` message is in at least one queue.
- **Nothing is lost in silence.** A message is confirmed, or its future fails with a `PublishError`: `Unroutable` (no
  queue bound), `NotDeclared` (no such exchange), `PublishDenied` (the login may not), `QueueFull`,
  `TooLargeForBroker` (it only delays other messages), `BrokerUnavailable` (not confirmed before the timeout, or the
  login was refused), or `PublishError` itself (the broker refused the message). After several refusals of a kind,
  messages of that kind fail at once for some seconds and are not sent, because each would delay all others. A message
  may be stored although its future failed: publish it again.
- **A message may arrive twice.** The publisher sends an unconfirmed message again after a connection broke, until the
  timeout. The id in every message makes that harmless: workers run one id once.
- **Messages of one thread arrive in order**, except for those that are sent again.
- **Bounded.** At most `window` messages are unconfirmed; with a full window, `submit` blocks until the timeout.
- **Thread-safe and fork-safe.** A forked child gets a connection of its own. Futures from before the fork are completed
  in the parent only.
- **Futures complete in the publisher's thread**: a callback must be short and must not wait for another future.
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
        """The largest body that the broker takes, in bytes; None as long as it has refused none for its size."""
        ...

    def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
        """Start publishing a message. Its future is done when the message is stored.

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
            PublishError: the message is not known to be stored; the subclass says why.
        """
        ...

    def close(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for all confirms, fail the rest, and disconnect. May be called again."""
        ...


class AmqpPublisher:
    """A `Publisher` for RabbitMQ: one connection in one thread of its own, confirms pipelined.

    The thread starts and connects at the first message. It reconnects while messages wait, with pauses that grow from
    0.1 s to 5 s until a connection has held for a while. After a refused login, messages fail until the next attempt.

    Args:
        url: `amqp://user:password@host:5672/vhost`, with `?heartbeat=` in seconds (30 by default, 0 for none; a
            silent broker is noticed within two, 12 s at the least) and the others of `dspex.amqp.url.PARAMETERS`.
        window: how many messages may be unconfirmed.
        timeout: seconds from `submit` until an unconfirmed message fails.
        ssl_context: for `amqps://`; by default the system's authorities are trusted.
        name: of the connection, in RabbitMQ's lists.
        patient: if a queue is full, or an exchange or a queue is missing, send the message again, at intervals of up to
            one second, until its timeout. Otherwise it fails at once.
        on_undeclared: called in the publisher's thread when the broker says that an exchange is missing. It must not
            block.

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
        """Why messages are not confirmed now: an error class, and one line for people."""
        link = self._link
        return (BrokerUnavailable, "the publisher is closed") if link is None else link.trouble()

    def _start_anew(self) -> None:
        self._link = None  # the socket belongs to the parent: it is not closed here
        self._starting = threading.Lock()
