"""For tests of the outbox: a service with a table of its own, and a publisher that keeps what it takes and can fail."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Column, Engine, MetaData, Row, String, Table, create_engine, func, insert, select, update

from dspex import Envelope, ExecuteProgram, decode_command, uuid7
from dspex.amqp.publication import Publication
from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, Binding, Exchange
from dspex.contract.commands import Command
from dspex.errors import BrokerUnavailable, PublishError
from dspex.outbox import Outbox
from workers.brokers.memory import MemoryBroker, MemoryPublisher

EXECUTIONS_ONLY = Binding(COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, ExecuteProgram.type)
"""No other command is routed, and the exchange has no alternate."""


class Service:
    """Orders, and the outbox beside them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.metadata = MetaData()
        self.orders = Table("orders", self.metadata, Column("name", String(20), primary_key=True))
        self.outbox = Outbox(self.metadata, source="/orders")

    def add(self, number: int = 1) -> list[str]:
        """Commands in one transaction; returns the ids of their messages."""
        with self.engine.begin() as connection:
            return [self.outbox.add(connection, command()) for _ in range(number)]

    def rows(self) -> list[Row[Any]]:
        """All of the outbox, with `waits`: whether a row is not due yet. Oldest first."""
        table = self.outbox.table
        waits = (table.c.due_at > table.c.inserted_at).label("waits")
        with self.engine.connect() as connection:
            return list(connection.execute(select(table, waits).order_by(table.c.inserted_at, table.c.id)))

    def left(self) -> int:
        """How many rows there are."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(self.outbox.table)).scalar_one()

    def order(self, name: str) -> Any:
        """The statement that inserts an order."""
        return insert(self.orders).values(name=name)

    def let_time_pass(self) -> None:
        """Every row is due, whatever it waits for."""
        with self.engine.begin() as connection:
            connection.execute(update(self.outbox.table).values(due_at=self.outbox.table.c.inserted_at))


@contextmanager
def service(url: str) -> Generator[Service]:
    """With its tables, on an engine as SQLAlchemy makes it."""
    engine = create_engine(url)
    made = Service(engine)
    made.metadata.create_all(engine)
    yield made
    engine.dispose()


def command(text: str = "why?") -> ExecuteProgram:
    return ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"question": text})


class Taken(NamedTuple):
    """A message that the broker has confirmed."""

    message_id: str
    envelope: Envelope[Command]


class KeepingPublisher(MemoryPublisher):
    """Settles what is on its way when somebody waits for it, as if all had been pipelined."""

    def __init__(
        self, *, exchange: str = COMMANDS_EXCHANGE, bindings: Collection[Binding] = (EXECUTIONS_ONLY,)
    ) -> None:
        broker = MemoryBroker(max_bytes=2**20, max_length=100_000)
        broker.declare_queue(EXECUTIONS_QUEUE)
        super().__init__(broker, exchanges=[Exchange(exchange, "topic")], bindings=list(bindings))
        self.taken: list[Taken] = []
        self.submitted = 0
        self.most_in_flight = 0
        self.room = math.inf
        """How many messages it takes until it is down."""
        self.fatal: set[UUID] = set()
        """Executions over whose messages the broker closes the connection."""
        self._in_flight: list[tuple[_Awaited, Publication]] = []
        self._lock = threading.RLock()

    @property
    def ids(self) -> list[str]:
        """Of the messages that were taken, in their order."""
        return [message_id for message_id, _ in self.taken]

    def allow(self, number: int) -> None:
        """It is up again, for so many messages."""
        with self._lock:
            self.room = number

    def submit(self, publication: Publication, **_: Any) -> Future[None]:
        with self._lock:
            self.submitted += 1
            future = _Awaited(self)
            self._in_flight.append((future, publication))
            self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
            return future

    def settle(self) -> None:
        with self._lock:
            sent, self._in_flight = self._in_flight, []
            closed = any(_about(message) in self.fatal for _, message in sent)
            for future, message in sent:
                if closed:
                    future.set_exception(PublishError("the broker closed the connection:\n501 FRAME_ERROR \x00"))
                elif self.room < 1:
                    future.set_exception(BrokerUnavailable("not confirmed in time: no connection"))
                elif (error := super().submit(message).exception()) is not None:
                    future.set_exception(error)
                else:
                    self.room -= 1
                    self.taken.append(Taken(message.message_id or "", decode_command(message.body)))
                    future.set_result(None)


class _Awaited(Future[None]):
    def __init__(self, publisher: KeepingPublisher) -> None:
        super().__init__()
        self._publisher = publisher

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._publisher.settle()
        return super().exception(timeout)


def _about(message: Publication) -> UUID | None:
    data = decode_command(message.body).data
    return data.execution_id if isinstance(data, ExecuteProgram) else None
