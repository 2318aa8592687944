"""The relay: publishes the rows of an outbox, and deletes what the broker has confirmed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dspex.amqp.publication import Publication
from dspex.amqp.publisher import DEFAULT_TIMEOUT, Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.backoff import doubled, spread
from dspex.errors import BrokerUnavailable, DspexError, NotDeclared, QueueFull, Unroutable
from dspex.outbox.statements import Refusal, Row, claim, forget, postpone, put_back
from dspex.outbox.table import Outbox
from dspex.outbox.transactions import transactions_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

logger = logging.getLogger("dspex.outbox")

FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
FIRST_RETRY, LAST_RETRY = 1.0, 300.0
"""Seconds: pauses of a relay in an outage, and of a row that the broker refuses."""

MAX_ERROR = 500
"""Characters of an error in a row or in a line of the log."""


class OutboxRelay:
    """Publishes what is due, in a thread of its own or by `run_once`. Any number of processes may have one.

    A process that forks starts it in the children. With an `AsyncEngine` it is started in the engine's event loop, on
    which its statements run: `async with OutboxRelay(...)`, or `start` and `aclose`.

    Args:
        engine: of the service's database; one connection is in use at a time, and none while a message is on its way.
        publisher: how messages get to the broker; the caller closes it, after the relay.
        batch: how many rows are taken at a time.
        interval: seconds between looks at the table, where no commit of this process wakes the relay.
        timeout: seconds the messages of a batch have to be confirmed. What a crashed relay had claimed is published by
            another after twice as long.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine | AsyncEngine,
        publisher: Publisher,
        *,
        batch: int = 100,
        interval: float = 1.0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if batch < 1:
            raise ValueError("batch must be at least 1")
        self._outbox = outbox
        self._transactions = transactions_of(engine)
        self._publisher = publisher
        self._batch = batch
        self._interval = interval
        self._timeout = timeout
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspex-outbox", daemon=True)

    def start(self) -> None:
        """Start the thread. It goes on whatever fails, until `close`."""
        self._transactions.begin_in_loop()
        self._outbox.subscribe(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look for rows now, unless it pauses after a failure."""
        self._woken.set()

    def close(self, timeout: float | None = None) -> None:
        """End the thread after the batch in hand, and wait for it, at most `timeout` seconds. May be called again.

        By default for as long as the batch may take. What is left in the table is for another relay.
        """
        self._end()
        if self._thread.is_alive():
            self._thread.join(timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """As `close`, for asyncio: the loop goes on meanwhile, and the last statements run on it."""
        self._end()
        await asyncio.to_thread(self.close, timeout)

    def _end(self) -> None:
        self._outbox.unsubscribe(self.wake)
        self._closing.set()
        self._woken.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def run_once(self) -> int:
        """Publish all that is due now, batch by batch; returns how many messages the broker has confirmed.

        Messages that the broker refuses are no error: their rows say why, and are due again later. With an
        `AsyncEngine` it is for a thread beside the loop that `start` was called in.

        Raises:
            BrokerUnavailable: the broker cannot be reached. The rows that are left are due, in their places.
            NotDeclared, Unroutable: nothing is declared on it, as far as one can see: it takes no message. So are they.
            SQLAlchemyError: of the database; what was confirmed in the last batch may be published again.
        """
        confirmed = 0
        while not self._closing.is_set():
            rows = self._transactions.run(self._claim)
            if rows:
                outcome = self._publish(rows)
                self._transactions.run(partial(self._record, outcome))
                confirmed += len(outcome.confirmed)
                if outcome.outage is not None:
                    raise outcome.outage
            if len(rows) < self._batch:
                break
        return confirmed

    def _claim(self, connection: Connection) -> list[Row]:
        return claim(connection, self._outbox.table, self._batch, 2 * self._timeout)

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            self._woken.clear()
            if self._succeeds():
                failures = 0
                self._woken.wait(self._interval)
            else:
                self._closing.wait(spread(doubled(FIRST_PAUSE, LAST_PAUSE, failures)))
                failures += 1

    def _succeeds(self) -> bool:
        try:
            self.run_once()
        except (DspexError, SQLAlchemyError) as error:
            logger.warning("The outbox %s waits: %s", self._outbox.table.name, _line(error))
        except Exception:
            logger.exception("The relay of the outbox %s failed; it goes on.", self._outbox.table.name)
        else:
            return True
        return False

    def _publish(self, rows: Sequence[Row]) -> _Outcome:
        """Publish in order, pipelined. What was refused before goes alone, and last.

        A broker may close a connection over one message, and fail all that are on their way with it.
        """
        deadline = time.monotonic() + self._timeout
        outcome = _Outcome()
        fresh = [row for row in rows if not row.attempts]
        errors = self._send(fresh, deadline)
        # No row's fault: nobody has declared the exchange yet, or its queues.
        undeclared = all(isinstance(error, NotDeclared | Unroutable) for error in errors)
        for row, error in zip(fresh, errors, strict=True):
            outcome.add(row, error, outage=undeclared)
        for row in rows:
            if row.attempts and outcome.outage is None:
                outcome.add(row, *self._send([row], deadline))
            elif row.attempts:
                outcome.unsent.append(row.id)
        return outcome

    def _send(self, rows: Sequence[Row], deadline: float) -> list[BaseException | None]:
        futures = [self._submit(row, deadline) for row in rows]
        return [future.exception() for future in futures]

    def _submit(self, row: Row, deadline: float) -> Future[None]:
        try:
            return self._publisher.submit(
                Publication(row.body, exchange=COMMANDS_EXCHANGE, routing_key=row.type, message_id=str(row.id)),
                timeout=max(0.0, deadline - time.monotonic()),
            )
        except BrokerUnavailable as error:
            failed: Future[None] = Future()
            failed.set_exception(error)
            return failed

    def _record(self, outcome: _Outcome, connection: Connection) -> None:
        table = self._outbox.table
        if outcome.confirmed:
            forget(connection, table, outcome.confirmed)
        if outcome.refused:
            postpone(connection, table, outcome.refused)
        if outcome.outage is not None:
            put_back(connection, table, outcome.unsent, _line(outcome.outage))


@dataclass
class _Outcome:
    """What became of a batch. `outage`: why the rows in `unsent` are not known to be stored."""

    confirmed: list[UUID] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    unsent: list[UUID] = field(default_factory=list)
    outage: BaseException | None = None

    def add(self, row: Row, error: BaseException | None, *, outage: bool = False) -> None:
        if error is None:
            self.confirmed.append(row.id)
        elif outage or isinstance(error, BrokerUnavailable):
            self.unsent.append(row.id)
            self.outage = self.outage or error
        else:
            logger.warning("Message %s of type %s is refused: %s", row.id, row.type, _line(error))
            longest = LAST_PAUSE if isinstance(error, QueueFull) else LAST_RETRY
            self.refused.append(Refusal(row.id, _line(error), spread(doubled(FIRST_RETRY, longest, row.attempts))))


def _line(error: BaseException) -> str:
    """What an error says, on one line that any database can store. Never the parameters of a statement."""
    said = getattr(error, "orig", None) or error
    code = error.code if isinstance(error, DspexError) else type(said).__name__
    printable = "".join(character if character.isprintable() else " " for character in f"{code}: {said}")
    return " ".join(printable.split())[:MAX_ERROR]
