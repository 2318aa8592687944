"""Protections, switched off from outside: each of these is what the system would be without one of them.

A test that passes with its protection off proves nothing; `test_protections.py` shows that they fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final

from dramatiq import Message
from dramatiq.encoder import JSONEncoder
from sqlalchemy import Connection, update

from dspex import ExecutionStatus
from dspex.errors import MessageError
from store.executions import Finish
from store.tables import executions
from workers.brokers import amqp
from workers.brokers.amqp import AmqpConsumer
from workers.brokers.encoding import Origin, read
from workers.writes import Writes

_OFF: Final = "DSPEX_TEST_UNPROTECTED"


def setting(name: str) -> dict[str, str]:
    """The environment of a worker without a protection: `stale acks`, `fence` or `decoding`."""
    if name not in _SWITCHES:
        raise ValueError(f"{name} is not one of {', '.join(_SWITCHES)}")
    return {_OFF: name}


def switch_off() -> None:
    """Switch off what the environment names."""
    if name := os.environ.get(_OFF):
        _SWITCHES[name]()


def _stale_acks() -> None:
    """As in Dramatiq: a tag of a connection that is gone is acked on the one that took its place."""
    settle = AmqpConsumer._settle

    def settle_any(self: Any, message: Any, how: Any) -> None:
        message.consumer = self
        self._unsettled.add(message.tag)
        settle(self, message, how)

    AmqpConsumer._settle = settle_any  # type: ignore[method-assign, assignment]


def _fence() -> None:
    """A finish that does not ask whether the row is still as it was claimed: it makes it so, and ends it."""
    finish = Writes.finish

    @wraps(finish)
    def finish_anyway(self: Writes, connection: Connection, finishes: Sequence[Finish]) -> list[bool]:
        for item in finishes:
            c = executions.c
            claimed = {"status": ExecutionStatus.RUNNING, "lock_version": item.lock_version}
            connection.execute(update(executions).where(c.id == item.id).values(claimed))
        return finish(self, connection, finishes)

    Writes.finish = finish_anyway  # type: ignore[method-assign]


def _decoding() -> None:
    """What is no command is read as Dramatiq reads its own messages."""
    stock = JSONEncoder()

    def read_anything(body: bytes, origin: Origin, max_bytes: int) -> Message[Any]:
        message = read(body, origin, max_bytes)
        if not isinstance(message.kwargs.get("error"), MessageError):
            return message
        try:
            return Message(**stock.decode(body))
        except Exception:  # noqa: BLE001  whatever it is
            # Dramatiq dead-letters it, as it does what is for an actor that there is not.
            return Message(origin.queue, "nobody", (), {}, {})

    amqp.read = read_anything  # type: ignore[attr-defined, assignment]


_SWITCHES: Final[dict[str, Callable[[], None]]] = {
    "stale acks": _stale_acks,
    "fence": _fence,
    "decoding": _decoding,
}
