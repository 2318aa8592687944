"""A message that was delivered to this process, and where it came from."""

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
    """Where deliveries come from."""

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Settle a delivery of this source, for any thread. Once the source is gone there is nothing to do.

        What was delivered by a source that is gone, and not settled, is delivered again by another.
        """


class Held(Protocol):
    """What a message holds until its actor has done with it."""

    def leave(self) -> None:
        """Let go of it."""


class Delivery(MessageProxy):
    """A message that was delivered to this process, until it is settled.

    Attributes:
        tries: how often an actor has had it.
        first_tried: when, by the monotonic clock.
        next_try: puts it aside; None: it is to be settled.
        recorded: whether it is among the rejected messages.
        can_be_dead_lettered: whether the broker can; else it is acked, for the rejected messages have it.
        tenant: whose it is, where it waits for another command.
        held: what it holds until its actor has done with it.
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
        # Dramatiq logs what fails, and its own text has everything that is in it.
        return f"{self.message_id} ({self.actor_name})"

    __repr__ = __str__

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self._settled

    def settle(self, disposition: Disposition) -> None:
        """Settle it; of one that is settled there is nothing left to do."""
        if not self._settled:
            self._settled = True
            if disposition is Disposition.DEAD_LETTER and not self.can_be_dead_lettered:
                disposition = Disposition.ACK
            self.source.settle(self, disposition)
