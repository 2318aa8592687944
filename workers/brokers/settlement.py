"""Decides for both brokers how a message is settled: acked, dead-lettered or requeued; or whether it waits.

A delivery is settled once, and only on the connection that it came by. So a job that outlives its connection settles
nothing; on a new channel, its tag would belong to another message.
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
    """Raised by an actor: the message goes back to its queue, for another worker or a later attempt."""


class PutAside(Exception):
    """Raised by an actor: the message waits in this process, unsettled and without a thread, and is handled again."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds


class SettlingConsumer(Consumer):
    """A consumer that settles messages when an actor has returned or raised."""

    def ack(self, message: MessageProxy) -> None:
        """Ack the message, or requeue it or put it aside, as the actor has asked."""
        if not isinstance(message, Delivery):
            return
        next_try, message.next_try = message.next_try, None
        if next_try is not None:
            next_try()  # from here on, another thread may handle it
        else:
            message.settle(Disposition.REQUEUE if message.requeue else Disposition.ACK)

    def nack(self, message: MessageProxy) -> None:
        """Dead-letter the message."""
        if isinstance(message, Delivery):
            message.settle(Disposition.DEAD_LETTER)


_handled = threading.local()
"""`delivery`: the delivery that this thread handles."""


def handled() -> Delivery | None:
    """The delivery that this thread handles; None outside of an actor."""
    delivery: Delivery | None = getattr(_handled, "delivery", None)
    return delivery


def aside() -> list[Delivery]:
    """The deliveries that this thread's worker has put aside."""
    work: WorkQueue | None = getattr(_handled, "work", None)
    return [] if work is None else [item.message for item in work.aside]


def ack_early() -> None:
    """Ack the message that this thread handles before its actor returns, as the database has stored its request.

    A later error of the actor does not change that. Does nothing outside of an actor.
    """
    delivery = handled()
    if delivery is not None:
        delivery.settle(Disposition.ACK)


@dataclass
class _Again:
    """A message that was put aside, as an item of the work queue."""

    priority: int
    message: Delivery


class Settlement(Middleware):
    """Translates the exception of an actor into the settlement of its message. It is the only middleware.

    Dramatiq's own retries, results and callbacks are middleware, whose failures it swallows: a retry that cannot be
    enqueued is acked and lost. Here the database does these jobs.
    """

    def __init__(self) -> None:
        self._work = WorkQueue()
        self._gone = WeakSet[Source]()

    @property
    def actor_options(self) -> set[str]:
        """`throws`: exceptions that Dramatiq does not log with a traceback."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        """Give a worker our queue before its threads start, unless it has one."""
        queue = queue_of(worker)
        if queue is not None:
            self._work = queue
        use_queue(worker, self._work)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Called in the worker thread, before the actor."""
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
        """Called in the worker thread, before it acks or nacks."""
        _handled.delivery = None
        if isinstance(message, Delivery) and message.held is not None:
            held, message.held = message.held, None
            held.leave()
        if isinstance(exception, Requeue) and isinstance(message, Delivery):
            message.requeue = True
        elif isinstance(exception, PutAside) and isinstance(message, Delivery):
            # An acked message is done, and a message of a closed source will come again.
            if not message.settled and message.source not in self._gone:
                item = _Again(broker.get_actor(message.actor_name).priority, message)
                message.next_try = partial(self._work.put_aside, item, exception.seconds)
        elif exception is not None:
            message.fail()

    def forget(self, source: Source) -> None:
        """Remove messages of a closed source that were not started from the worker's queue."""
        self._gone.add(source)
        self._work.forget(source)
