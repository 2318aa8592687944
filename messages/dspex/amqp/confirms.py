"""Which messages of a channel the broker has not confirmed yet. Bookkeeping only: no I/O, one thread.

In confirm mode the n-th message published on a channel has delivery tag n, and the broker acks or nacks tags one by
one or all up to one (`multiple`): https://www.rabbitmq.com/docs/confirms.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from dspex.amqp.publication import Publication
from dspex.errors import PublishError


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message that is not confirmed yet.

    Attributes:
        deadline: when its future fails, in seconds of `time.monotonic`.
        returned: the broker sent it back, because no queue took it.
        refused: the error class and text of the last refusal, if the broker has refused it.
    """

    publication: Publication
    deadline: float
    future: Future[None] = field(default_factory=Future)
    returned: bool = False
    refused: tuple[type[PublishError], str] | None = None


class Unconfirmed:
    """The unconfirmed messages of one channel."""

    def __init__(self) -> None:
        self._messages: dict[int, Outgoing] = {}
        self._last = 0  # tag of the newest message
        self._settled = 0  # every tag up to here is confirmed
        self._returned = 0  # tag of the last message that came back

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Outgoing) -> None:
        """Note the next message that was published on the channel."""
        self._last += 1
        self._messages[self._last] = message

    def settle(self, tag: int, multiple: bool) -> list[Outgoing]:
        """Take out the messages that an ack or nack of `tag` covers, oldest first."""
        if not multiple:
            message = self._messages.pop(tag, None)
            return [] if message is None else [message]
        # Tag 0 stands for all (AMQP 0-9-1, 1.8.3.13). Starting at `_settled` visits each tag once in the life of the
        # channel.
        newest = tag or self._last
        tags = range(self._settled + 1, newest + 1)
        self._settled = max(self._settled, newest)
        return [message for tag in tags if (message := self._messages.pop(tag, None)) is not None]

    def mark_returned(self, exchange: str, routing_key: str, message_id: str | None, body: bytes) -> None:
        """Note that the broker returned a mandatory message; its ack follows.

        A return carries no tag, but returns come in the order of publishing. So it is the first message after the last
        return with the same exchange, key, id and body; where several match, they are interchangeable.
        """
        for tag in range(self._returned + 1, self._last + 1):
            message = self._messages.get(tag)
            if message is None:
                continue
            sent = message.publication
            if (
                sent.mandatory
                and sent.message_id == message_id
                and (sent.exchange, sent.routing_key) == (exchange, routing_key)
                and sent.body == body
            ):
                message.returned = True
                self._returned = tag
                return

    def take_expired(self, now: float) -> list[Outgoing]:
        """Take out the messages whose deadline has passed. A later ack of one of them is ignored."""
        return self._take(tag for tag, message in self._messages.items() if message.deadline <= now)

    def take_all(self) -> list[Outgoing]:
        """Take out all messages, oldest first. For a channel that has closed."""
        return self._take(self._messages)

    def _take(self, tags: Iterable[int]) -> list[Outgoing]:
        return [self._messages.pop(tag) for tag in tuple(tags)]
