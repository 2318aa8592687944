"""The relay: publishes the rows of an outbox, and deletes those that the broker has confirmed."""

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
"""Seconds between attempts of a relay in an outage, and between attempts of a row that the broker refuses."""

MAX_ERROR = 500
"""The longest error in a row or a log line, in characters."""


class OutboxRelay:
    """Publishes the rows that are due, in a thread of its own or by `run_once`. Any number of processes may run one.

    A process that forks must start it in the children. With an `AsyncEngine`, start it in the engine's event loop,
    where its statements then run: `async with OutboxRelay(...)`, or `start` and `aclose`.

    Args:
        engine: of the service's database. The relay uses one connection at a time, and none while it publishes.
        publisher: sends the messages. The caller closes it, after the relay.
        batch: how many rows are taken at a time.
        interval: seconds between reads of the table, if no commit of this process wakes the relay.
        timeout: seconds in which the messages of a batch must be confirmed. The claims of a crashed relay expire after
            twice this time.
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
        """Start the thread. It survives every failure, and runs until `close`."""
        self._transactions.begin_in_loop()
        self._outbox.subscribe(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread read the table now, unless it pauses after a failure."""
        self._woken.set()

    def close(self, timeout: float | None = None) -> None:
        """End the thread after the batch in hand, and wait for it, at most `timeout` seconds. May be called again.

        By default it waits as long as a batch may take. Rows that are left stay in the table.
        """
        self._end()
        if self._thread.is_alive():
            self._thread.join(timeout)

    async def aclose(self, timeout: float | None = None) -> None:
        """Like `close`, for asyncio. It does not block the event loop, on which the last statements run."""
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
        """Publish all rows that are due now, in batches. Returns how many messages the broker has confirmed.

        A message that the broker refuses raises no error: its row records the reason, and is due again later. With an
        `AsyncEngine`, call this in a thread other than that of the event loop in which `start` was called.

        Raises:
            BrokerUnavailable: the broker cannot be reached. The other rows stay due, in their order.
            NotDeclared, Unroutable: the broker took no message, so nothing seems to be declared on it. The other rows
                stay due, in their order.
            SQLAlchemyError: the database failed. Confirmed messages of the last batch may be published again.
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
        """Publish in order, pipelined. Rows that were refused before go last, one at a time.

        One message can make the broker close the connection, which fails all others that are in flight.
        """
        deadline = time.monotonic() + self._timeout
        outcome = _Outcome()
        fresh = [row for row in rows if not row.attempts]
        errors = self._send(fresh, deadline)
        # If it is so for all, no row is at fault: the exchange or its queues are not declared yet.
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
    """The outcome of a batch. `outage`: why the rows in `unsent` are not known to be stored."""

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
    """The text of an error, in one line that any database can store; without the parameters of a statement."""
    said = getattr(error, "orig", None) or error
    code = error.code if isinstance(error, DspexError) else type(said).__name__
    printable = "".join(character if character.isprintable() else " " for character in f"{code}: {said}")
    return " ".join(printable.split())[:MAX_ERROR]
