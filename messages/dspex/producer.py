"""What a service that gives DSPex work holds: it sends commands and knows that they are stored.

>>> with Producer.connect("amqp://user:password@host/vhost", source="/orders") as producer:
...     producer.send(ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={"question": "..."}))
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from ssl import SSLContext
from typing import NamedTuple, Self

from dspex.amqp.publication import command_publication
from dspex.amqp.publisher import DEFAULT_TIMEOUT, DEFAULT_WINDOW, AmqpPublisher, Publisher
from dspex.contract.commands import Command
from dspex.contract.envelope import Envelope, wrap
from dspex.errors import DspexError


class Producer:
    """Sends commands. Thread-safe; one for each process is enough.

    Args:
        publisher: how messages get to the broker; the caller closes it.
        source: who sends, a URI reference such as `/orders` (CloudEvents `source`).
        tenant: for workers, which may speak for any; others have the tenant of their login.
    """

    def __init__(self, publisher: Publisher, *, source: str, tenant: str | None = None) -> None:
        self._publisher = publisher
        self._tenant = tenant
        self._source = source
        self._owns_publisher = False

    @classmethod
    def connect(
        cls,
        url: str,
        source: str,
        *,
        window: int = DEFAULT_WINDOW,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_context: SSLContext | None = None,
    ) -> Self:
        """A producer with a connection of its own, made at the first command and closed by `close`.

        Args:
            url: `amqp://user:password@host:5672/vhost`.
            source: who sends, a URI reference such as `/orders`.
            window: how many messages may be unconfirmed at a time.
            timeout: seconds a message has to be confirmed; so long it also waits for a queue that is full, and for an
                exchange that is not there yet.
            ssl_context: for `amqps://`; by default the system's authorities are trusted.

        Raises:
            SettingsError: the URL cannot be read.
        """
        publisher = AmqpPublisher(
            url,
            window=window,
            timeout=timeout,
            ssl_context=ssl_context,
            name=f"dspex producer {source}",
            patient=True,
        )
        producer = cls(publisher, source=source)
        producer._owns_publisher = True
        return producer

    def send(self, command: Command, *, traceparent: str | None = None, tenant: str | None = None) -> str:
        """Publish one command; returns the id of the message once the broker has stored it.

        Args:
            traceparent: W3C Trace Context of the caller's span.
            tenant: in the place of the producer's own, for workers.

        Raises:
            MessageTooLarge: the message is over 1 MiB.
            InvalidMessage: it cannot be sent: text that is not valid Unicode, an empty `source`.
            PublishError: the broker did not confirm it. Send the same command again: its id makes that safe.
        """
        envelope = wrap(command, source=self._source, traceparent=traceparent, tenant=tenant or self._tenant)
        self._submit(envelope).result()
        return envelope.id

    def send_all(self, commands: Iterable[Command], *, traceparent: str | None = None) -> int:
        """Publish many commands without waiting for each; returns how many, once the broker has stored all.

        Takes from `commands` only as fast as the broker confirms, so they may be more than fit into memory.

        Raises:
            MessageError, PublishError: of the first command that failed, once all that were sent are settled; the
                text names it and says how many others are confirmed. Sending all of them again is safe.
        """
        confirmed = 0
        in_flight: deque[_Sent] = deque()
        for number, command in enumerate(commands, 1):
            in_flight.append(_Sent(number, command, self._start(command, traceparent)))
            while in_flight and in_flight[0].future.done():
                confirmed = _settle_oldest(in_flight, confirmed)
        while in_flight:
            confirmed = _settle_oldest(in_flight, confirmed)
        return confirmed

    def close(self) -> None:
        """Wait for what is on its way and disconnect, where `connect` made the connection."""
        if self._owns_publisher:
            self._publisher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, command: Command, traceparent: str | None) -> Future[None]:
        try:
            return self._submit(wrap(command, source=self._source, traceparent=traceparent, tenant=self._tenant))
        except DspexError as error:
            failed: Future[None] = Future()
            failed.set_exception(error)
            return failed

    def _submit(self, envelope: Envelope[Command]) -> Future[None]:
        return self._publisher.submit(command_publication(envelope, envelope.encode()))


class _Sent(NamedTuple):
    number: int
    command: Command
    future: Future[None]


def _settle_oldest(in_flight: deque[_Sent], confirmed: int) -> int:
    """Wait for the oldest and count it. Where it failed wait for the others too, then raise its error."""
    oldest = in_flight.popleft()
    error = oldest.future.exception()
    if error is None:
        return confirmed + 1
    confirmed += sum(other.future.exception() is None for other in in_flight)
    if not isinstance(error, DspexError):
        raise error
    which = f"command {oldest.number}, {oldest.command.type} of {oldest.command.subject}"
    raise type(error)(f"{which}: {error}; {confirmed} other commands are confirmed") from error
