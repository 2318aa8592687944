"""The relay: publishes what is due in the database. It runs in every worker process; any number may run together.

It finds retries, scheduled executions, executions of lost workers, rows whose message was lost, and unconfirmed events.
It ends external executions whose service has let the lease run out.
It finds all of them by status and time, never by a position. If publishing fails, they become due again later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sqlalchemy import Connection

from dspex.amqp.publication import command_publication
from dspex.errors import MessageTooLarge, PublishError, TooLargeForBroker
from store import event_outbox, executions
from store.database.engine import READ_ONLY
from store.database.identity import Identity
from store.executions import Execution, Request, external
from workers.application.wiring import Application
from workers.execution.completion import give_up
from workers.execution.event_publisher import announce, tell_end
from workers.execution.request import envelope_of
from workers.maintenance.early_cancels import EarlyCancels
from workers.maintenance.queue_counts import QueueCounts
from workers.persistence.operations import RELAY_LIMIT

logger = logging.getLogger(__name__)


class Relay:
    """Publishes what is due. For one thread.

    Args:
        unclaimed: returns whether this process has messages of executions that wait for a slot.
    """

    def __init__(self, app: Application, unclaimed: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._unclaimed = unclaimed
        self._counts = QueueCounts(app)
        self._early_cancels = EarlyCancels(app)
        self._look_at_events = 0.0  # the time of the next look at the event outbox
        self._look_at_external = 0.0  # the same for external executions

    def run(self) -> None:
        """Publish everything that is due now.

        Raises:
            PublishError: the broker did not confirm. Try again later.
        """
        self._end_expired()
        self._counts.run()
        self._early_cancels.run()
        own = self._app.own
        if own is not None:
            # Ends need no relay here: only this process listens, and it has announced them.
            while (mine := own.identities) and self._is_due(executions.anything_due) and self._executions(mine):
                pass
            return
        while self._is_due(executions.anything_due) and self._executions():
            pass
        # Events are due after a lease at the earliest, and there is no index for them.
        if time.monotonic() >= self._look_at_events:
            while self._is_due(event_outbox.anything_due) and self._events():
                pass
            self._look_at_events = time.monotonic() + self._app.settings.lease_seconds / 3

    def _is_due(self, look: Callable[[Connection], bool]) -> bool:
        with self._app.engine.connect().execution_options(**READ_ONLY) as connection:
            return look(connection)

    def _executions(self, only: Sequence[Identity] | None = None) -> bool:
        """Publish one batch of due executions. Returns whether there may be more.

        An execution that was published and not taken may still be in its queue. While messages wait here unclaimed,
        this is assumed, and it is not published again.

        Args:
            only: publish only these executions.
        """
        app = self._app
        rescued = app.writer.call(app.writes.rescue, only)
        for request in rescued:
            app.episodes.tell("Executions whose worker is gone are published again", f"execution {request.id}")
        app.metrics.execution_rescued(len(rescued))
        due = app.writer.call(app.writes.due, only)
        waiting = self._unclaimed()
        self._publish([request for request, again in due if not (again and waiting)])
        return max(len(rescued), len(due)) >= RELAY_LIMIT

    def _end_expired(self) -> None:
        """End external executions whose lease has run out; looks from time to time only."""
        app = self._app
        if time.monotonic() < self._look_at_external:
            return
        ended: list[Execution] | None = None
        while (ended is None or len(ended) >= RELAY_LIMIT) and self._is_due(external.anything_expired):
            ended = app.writer.call(app.writes.end_expired, None)
            for execution in ended:
                tell_end(app, execution)
        self._look_at_external = time.monotonic() + app.settings.lease_seconds / 3

    def _events(self) -> bool:
        due = self._app.writer.call(self._app.writes.events_due, None)
        for execution in due:
            announce(self._app, execution)
        return len(due) >= RELAY_LIMIT

    def _publish(self, requests: Sequence[Request]) -> None:
        sent = [(request, future) for request in requests if (future := self._submit(request)) is not None]
        failed = None
        for request, future in sent:
            try:
                future.result()
            except TooLargeForBroker as error:
                give_up(self._app, request, f"its message cannot be sent again: {error.message}")
            except PublishError as error:
                logger.debug("Execution %s will be due again in a lease: %s", request.id, error)
                failed = error
        if failed is not None:
            raise failed

    def _submit(self, request: Request) -> Future[None] | None:
        envelope = envelope_of(request)
        try:
            body = envelope.encode(self._app.settings.max_message_bytes)
        except MessageTooLarge as error:
            # It was just small enough in the sender's JSON; in ours, a worker would reject it.
            give_up(self._app, request, f"its message cannot be sent again: {error.message}")
            return None
        return self._app.publisher.submit(command_publication(envelope, body))
