"""How a message ends: acked, dead-lettered, given back to its queue; or it waits. Decided here, for both brokers.

A delivery is settled once, with where it came from and nowhere else. So a job that outlives its connection settles
nothing: the tags of an old channel are numbers of other messages on a new one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from dramatiq import Broker, Consumer, MessageProxy, Middleware, Worker

from workers.brokers.delivery import Delivery, Disposition, Source
from workers.brokers.dramatiq_worker import queue_of, use_queue
from workers.brokers.work_queue import WorkQueue


class DeadLetter(Exception):
    """Raised by an actor: the message goes to the dead-letter queue."""


class Requeue(Exception):
    """Raised by an actor: the message goes back to its queue, for another worker or a better time."""


class PutAside(Exception):
    """Raised by an actor: its message waits in this process, unsettled and without a thread, and is handled again."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds


class SettlingConsumer(Consumer):
    """What Dramatiq's worker calls when an actor has returned or raised."""

    def ack(self, message: MessageProxy) -> None:
        """Ack; or give back, or put aside, if the actor asked for it."""
        if not isinstance(message, Delivery):
            return
        next_try, message.next_try = message.next_try, None
        if next_try is not None:
            next_try()  # from here on another thread may have it
        else:
            message.settle(Disposition.REQUEUE if message.requeue else Disposition.ACK)

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter."""
        if isinstance(message, Delivery):
            message.settle(Disposition.DEAD_LETTER)


_handled = threading.local()
"""`delivery`: what this thread handles now."""


def handled() -> Delivery | None:
    """What this thread handles now; None outside of an actor."""
    delivery: Delivery | None = getattr(_handled, "delivery", None)
    return delivery


def aside() -> list[Delivery]:
    """What the worker of this thread has put aside."""
    work: WorkQueue | None = getattr(_handled, "work", None)
    return [] if work is None else [item.message for item in work.aside]


def ack_early() -> None:
    """Ack the message that this thread handles, before its actor returns: the database has what it asked for.

    What the actor raises later settles nothing. Outside of an actor there is no message, and nothing happens.
    """
    delivery = handled()
    if delivery is not None:
        delivery.settle(Disposition.ACK)


@dataclass
class _Again:
    """A message that was put aside, as the queue of work has it."""

    priority: int
    message: Delivery


class Settlement(Middleware):
    """Turns what an actor raised into how its message ends. It is the only middleware.

    Dramatiq's own retries, results and callbacks live in middleware whose failures it swallows: a retry that cannot
    be enqueued is acked and gone. Here these belong to the database.
    """

    def __init__(self) -> None:
        self._work = WorkQueue()
        self._gone = WeakSet[Source]()

    @property
    def actor_options(self) -> set[str]:
        """`throws`: exceptions that Dramatiq does not log with a traceback."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Called when a worker starts, before its threads: gives it a queue of ours, unless it has one."""
        queue = queue_of(worker)
        if queue is not None:
            self._work = queue
        use_queue(worker, self._work)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Called by the worker thread, before the actor."""
        if not isinstance(message, Delivery):
            _handled.delivery = None
            return
        _handled.delivery, _handled.work = message, self._work
        message.tries += 1
        if message.tries == 1:
            message.first_tried = time.monotonic()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        """Called by the worker thread, before it acks or nacks."""
        _handled.delivery = None
        if isinstance(message, Delivery) and message.held is not None:
            held, message.held = message.held, None
            held.leave()
        if isinstance(exception, Requeue) and isinstance(message, Delivery):
            message.requeue = True
        elif isinstance(exception, PutAside) and isinstance(message, Delivery):
            # What was acked is done with, and what came from a source that is gone comes again.
            if not message.settled and message.source not in self._gone:
                item = _Again(broker.get_actor(message.actor_name).priority, message)
                message.next_try = partial(self._work.put_aside, item, exception.seconds)
        elif exception is not None:
            message.fail()

    def forget(self, source: Source) -> None:
        """Take what came from a source that is gone, and was not started, out of the worker's queue."""
        self._gone.add(source)
        self._work.forget(source)
