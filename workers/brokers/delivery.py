"""A message that was delivered to this process, and its source."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from dramatiq import Message, MessageProxy


class Disposition(Enum):
    """How a delivery is settled."""

    ACK = auto()
    REQUEUE = auto()
    DEAD_LETTER = auto()


class Source(Protocol):
    """The source of deliveries, such as a subscription."""

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Settle a delivery of this source. Thread-safe; does nothing if the source is closed.

        The broker delivers the unsettled messages of a closed source again, by another source.
        """


class Held(Protocol):
    """A resource that a message holds until its actor is done."""

    def leave(self) -> None:
        """Release it."""


class Delivery(MessageProxy):
    """A message that was delivered to this process, until it is settled.

    Attributes:
        tries: how often an actor has handled it.
        first_tried: the time of the first, by the monotonic clock.
        next_try: puts the message aside; None: it must be settled.
        recorded: whether it was recorded as a rejected message.
        can_be_dead_lettered: whether the broker can dead-letter it. If not, it is acked, as it is recorded.
        tenant: its tenant, while it waits for another command.
        held: a resource that it holds until its actor is done.
    """

    def __init__(self, message: Message[Any], source: Source, tag: int) -> None:
        super().__init__(message)
        self.source = source
        self.tag = tag
        self.requeue = False
        self.tries = 0
        self.first_tried = 0.0
        self.next_try: Callable[[], None] | None = None
        self.recorded = False
        self.can_be_dead_lettered = True
        self.tenant: str | None = None
        self.held: Held | None = None
        self._settled = False

    def __str__(self) -> str:
        # Dramatiq logs failed messages, and its own text would show the whole content.
        return f"{self.message_id} ({self.actor_name})"

    __repr__ = __str__

    @property
    def settled(self) -> bool:
        """Whether the delivery is settled."""
        return self._settled

    def settle(self, disposition: Disposition) -> None:
        """Settle the delivery, unless it is settled already."""
        if not self._settled:
            self._settled = True
            if disposition is Disposition.DEAD_LETTER and not self.can_be_dead_lettered:
                disposition = Disposition.ACK
            self.source.settle(self, disposition)
