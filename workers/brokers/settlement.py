"""How a message ends: acked, dead-lettered, or given back to its queue. Decided here, for both brokers."""

from __future__ import annotations

from typing import Any

from dramatiq import Broker, Message, MessageProxy, Middleware


class DeadLetter(Exception):
    """Raised by an actor: the message goes to the dead-letter queue."""


class Requeue(Exception):
    """Raised by an actor: the message goes back to its queue, for another worker or a better time."""


class Delivery(MessageProxy):
    """A message that was delivered to this process, until it is settled."""

    def __init__(self, message: Message[Any], consumer: object, tag: int) -> None:
        super().__init__(message)
        self.consumer = consumer
        self.tag = tag
        self.requeue = False


class Settlement(Middleware):
    """Turns what an actor raised into how its message ends. It is the only middleware.

    Dramatiq's own retries, results and callbacks live in middleware whose failures it swallows: a retry that cannot
    be enqueued is acked and gone. Here these belong to the database.
    """

    @property
    def actor_options(self) -> set[str]:
        """`throws`: exceptions that Dramatiq does not log with a traceback."""
        return {"throws"}

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,
    ) -> None:
        """Called by the worker thread, before it acks or nacks."""
        if isinstance(exception, Requeue) and isinstance(message, Delivery):
            message.requeue = True
        elif exception is not None:
            message.fail()
