"""Protections, switched off from outside: each of these is what the system would be without one of them.

A test that passes with its protection off proves nothing; `test_protections.py` shows that they fail.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final

from dramatiq import Message
from dramatiq.encoder import JSONEncoder
from sqlalchemy import Connection, select, update

from dspex import ExecuteProgram, ExecutionStatus, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.errors import MessageError
from store.executions import Finish, Request, Retry
from store.executions.rows import request_of
from store.tables import executions
from workers.brokers import subscription
from workers.brokers.delivery import Disposition
from workers.brokers.encoding import Content, Origin, read
from workers.brokers.settlement import Settlement
from workers.brokers.subscription import Subscription
from workers.persistence.operations import Writes, Written

_OFF: Final = "DSPEX_TEST_UNPROTECTED"


def setting(name: str) -> dict[str, str]:
    """The environment of a worker without a protection: `retries`, `stale acks`, `fence` or `decoding`."""
    if name not in _SWITCHES:
        raise ValueError(f"{name} is not one of {', '.join(_SWITCHES)}")
    return {_OFF: name}


def switch_off() -> None:
    """Switch off what the environment names."""
    if name := os.environ.get(_OFF):
        _SWITCHES[name]()


def _retries() -> None:
    """As in Dramatiq: another attempt is a message, sent when the one before fails; where it is not, nobody is told.

    Nobody chooses it before, as it is in no queue; the message has the worker take it into one.
    """
    retry = Writes.retry
    publisher = AmqpPublisher(os.environ["DSPEX_BROKER_URL"], timeout=1)

    def send(request: Request) -> None:
        command = ExecuteProgram(
            execution_id=request.id, program_id=request.program_id, inputs=dict(request.inputs), options=request.options
        )
        envelope = wrap(command, source=request.source)
        publisher.submit(Publication(envelope.encode(), exchange=COMMANDS_EXCHANGE, routing_key=envelope.type))

    @wraps(retry)
    def retry_by_message(self: Writes, connection: Connection, retries: Sequence[Retry]) -> list[Written]:
        waiting = retry(self, connection, retries)
        delays = {item.id: item.delay for item in retries}
        connection.execute(update(executions).where(executions.c.id.in_(delays)).values(run_at=None))
        for row in connection.execute(select(executions).where(executions.c.id.in_(delays))):
            threading.Timer(delays[row.id] + 0.2, send, (request_of(row),)).start()
        return waiting

    Writes.retry = retry_by_message  # type: ignore[method-assign]


def _stale_acks() -> None:
    """As in Dramatiq: a tag of a connection that is gone is acked on the one that took its place."""
    newest: dict[str, Subscription] = {}
    begin, settle = Subscription.__init__, Subscription.settle

    @wraps(begin)
    def begin_and_note(self: Subscription, parameters: Any, queue_name: str, **options: Any) -> None:
        begin(self, parameters, queue_name, **options)
        newest[queue_name] = self

    def settle_on_newest(self: Subscription, delivery: Any, disposition: Disposition) -> None:
        other = newest[self._queue_name]
        other._unsettled.setdefault(delivery.tag, 0)  # it may not have come to that yet
        settle(other, delivery, disposition)

    Subscription.__init__ = begin_and_note  # type: ignore[method-assign]
    Subscription.settle = settle_on_newest  # type: ignore[method-assign]
    Settlement.forget = lambda *_: None  # type: ignore[method-assign]


def _fence() -> None:
    """A finish that does not ask whether the row is still as it was claimed: it makes it so, and ends it."""
    finish = Writes.finish

    @wraps(finish)
    def finish_anyway(self: Writes, connection: Connection, finishes: Sequence[Finish]) -> list[Written]:
        for item in finishes:
            c = executions.c
            claimed = {"status": ExecutionStatus.RUNNING, "lock_version": item.lock_version}
            connection.execute(update(executions).where(c.id == item.id).values(claimed))
        return finish(self, connection, finishes)

    Writes.finish = finish_anyway  # type: ignore[method-assign]


def _decoding() -> None:
    """What is no command is read as Dramatiq reads its own messages."""
    stock = JSONEncoder()

    def read_anything(content: Content, origin: Origin, max_bytes: int, **options: Any) -> Message[Any]:
        message = read(content, origin, max_bytes, **options)
        if not isinstance(message.kwargs.get("error"), MessageError):
            return message
        try:
            return Message(**stock.decode(content.body))
        except Exception:  # noqa: BLE001  whatever it is
            # Dramatiq dead-letters it, as it does what is for an actor that there is not.
            return Message(origin.queue, "nobody", (), {}, {})

    subscription.read = read_anything  # type: ignore[attr-defined, assignment]


_SWITCHES: Final[dict[str, Callable[[], None]]] = {
    "retries": _retries,
    "stale acks": _stale_acks,
    "fence": _fence,
    "decoding": _decoding,
}
