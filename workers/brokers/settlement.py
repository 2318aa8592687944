"""How a message ends: acked, dead-lettered, or given back to its queue. Decided here, for both brokers.

A delivery is settled once, with where it came from and nowhere else. So a job that outlives its connection settles
nothing: the tags of an old channel are numbers of other messages on a new one.
"""

from __future__ import annotations

import threading
from enum import Enum, auto
from typing import Any, Protocol

from dramatiq import Broker, Consumer, Message, MessageProxy, Middleware, Worker

from workers.brokers.work_queue import WorkQueue


class DeadLetter(Exception):
    """Raised by an actor: the message goes to the dead-letter queue."""


class Requeue(Exception):
    """Raised by an actor: the message goes back to its queue, for another worker or a better time."""


class Outcome(Enum):
    """How a message ends."""

    ACK = auto()
    REQUEUE = auto()
    DEAD_LETTER = auto()


class Source(Protocol):
    """Where deliveries come from."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery of this source, for any thread. Once the source is gone there is nothing to do.

        What was delivered by a source that is gone, and not settled, is delivered again by another.
        """


class Delivery(MessageProxy):
    """A message that was delivered to this process, until it is settled."""

    def __init__(self, message: Message[Any], source: Source, tag: int) -> None:
        super().__init__(message)
        self.source = source
        self.tag = tag
        self.requeue = False
        self._settled = False

    def settle(self, outcome: Outcome) -> None:
        """Settle it; of one that is settled there is nothing left to do."""
        if not self._settled:
            self._settled = True
            self.source.settle(self, outcome)


class SettlingConsumer(Consumer):
    """What Dramatiq's worker calls when an actor has returned or raised."""

    def ack(self, message: MessageProxy) -> None:
        """Ack, or give back if the actor asked for it."""
        if isinstance(message, Delivery):
            message.settle(Outcome.REQUEUE if message.requeue else Outcome.ACK)

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter."""
        if isinstance(message, Delivery):
            message.settle(Outcome.DEAD_LETTER)


_handled = threading.local()
"""`delivery`: what this thread handles now."""


def ack_early() -> None:
    """Ack the message that this thread handles, before its actor returns: the database has what it asked for.

    What the actor raises later settles nothing. Outside of an actor there is no message, and nothing happens.
    """
    delivery: Delivery | None = getattr(_handled, "delivery", None)
    if delivery is not None:
        delivery.settle(Outcome.ACK)


class Settlement(Middleware):
    """Turns what an actor raised into how its message ends. It is the only middleware.

    Dramatiq's own retries, results and callbacks live in middleware whose failures it swallows: a retry that cannot
    be enqueued is acked and gone. Here these belong to the database.
    """

    def __init__(self) -> None:
        self._work = WorkQueue()

    @property
    def actor_options(self) -> set[str]:
        """`throws`: exceptions that Dramatiq does not log with a traceback."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Called when a worker starts, before its threads: gives it a queue of ours, unless it has one."""
        starting: Any = worker
        if isinstance(starting.work_queue, WorkQueue):
            self._work = starting.work_queue
        starting.work_queue = self._work

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Called by the worker thread, before the actor."""
        _handled.delivery = message if isinstance(message, Delivery) else None

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        """Called by the worker thread, before it acks or nacks."""
        _handled.delivery = None
        if isinstance(exception, Requeue) and isinstance(message, Delivery):
            message.requeue = True
        elif exception is not None:
            message.fail()

    def forget(self, source: Source) -> None:
        """Take what came from a source that is gone, and was not started, out of the worker's queue."""
        self._work.forget(source)
