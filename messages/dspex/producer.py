"""The producer: sends commands, and returns once the broker has stored them.

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
        publisher: sends the messages. The caller closes it.
        source: the CloudEvents `source` of its commands, a URI reference such as `/orders`.
        tenant: only for workers, which may act for any tenant. All others act for the tenant of their login.
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
            source: the CloudEvents `source` of its commands, a URI reference such as `/orders`.
            window: how many messages may be unconfirmed at a time.
            timeout: seconds until an unconfirmed message fails. Meanwhile it is sent again if a queue is full or an
                exchange is missing.
            ssl_context: for `amqps://`; by default the system's authorities are trusted.

        Raises:
            SettingsError: the URL is invalid.
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
            tenant: instead of the producer's own; only for workers.

        Raises:
            MessageTooLarge: the message is over 1 MiB.
            InvalidMessage: the message cannot be sent, for example for text that is not valid Unicode or an empty
                `source`.
            PublishError: the broker did not confirm it. Send the same command again: its id makes that safe.
        """
        envelope = wrap(command, source=self._source, traceparent=traceparent, tenant=tenant or self._tenant)
        self._submit(envelope).result()
        return envelope.id

    def send_all(self, commands: Iterable[Command], *, traceparent: str | None = None) -> int:
        """Publish many commands without waiting for each; returns how many, once the broker has stored all.

        Reads `commands` only as fast as the broker confirms, so they need not fit into memory.

        Raises:
            MessageError, PublishError: a command failed. It is raised when all that were sent are confirmed or failed;
                the text names the first that failed, and says how many others are confirmed. Sending all of them again
                is safe.
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
        """If `connect` made the connection, wait for unconfirmed commands and disconnect."""
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
    """Wait for the oldest command and count it. If it failed, wait for the others, too, then raise its error."""
    oldest = in_flight.popleft()
    error = oldest.future.exception()
    if error is None:
        return confirmed + 1
    confirmed += sum(other.future.exception() is None for other in in_flight)
    if not isinstance(error, DspexError):
        raise error
    which = f"command {oldest.number}, {oldest.command.type} of {oldest.command.subject}"
    raise type(error)(f"{which}: {error}; {confirmed} other commands are confirmed") from error
