"""The relay: looks after what nobody else looks after any more. It runs in every worker process, any number together.

It gives executions of lost workers back to their queues, makes queues ready in which something has become due, and
publishes events that the broker has not confirmed. It ends external executions whose service has let the lease run out.
It finds all of them by status and time, never by a position. What fails is due again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from store import event_outbox, executions
from store.database.engine import READ_ONLY
from store.database.identity import Identity
from store.executions import Execution, external
from store.queues import register
from store.queues.keys import QueueKey
from workers.application.wiring import Application
from workers.execution.event_publisher import announce, tell_end
from workers.maintenance.archived import Archived
from workers.maintenance.early_cancels import EarlyCancels
from workers.maintenance.idle_queues import IdleQueues
from workers.maintenance.queue_counts import QueueCounts
from workers.persistence.operations import RELAY_LIMIT


class Relay:
    """For one thread.

    Args:
        look: what is done at the end: choose executions for this process, if it has time.
    """

    def __init__(self, app: Application, look: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._archived = Archived(app)
        self._counts = QueueCounts(app)
        self._early_cancels = EarlyCancels(app)
        self._idle_queues = IdleQueues(app)
        self._look = look
        self._swept: QueueKey | None = None  # up to where queues were swept
        self._look_at_events = 0.0  # the time of the next look at the event outbox
        self._look_at_external = 0.0  # the same for external executions
        self._look_at_register = 0.0  # and for workers

    def run(self) -> None:
        """Do everything that is due now.

        Raises:
            PublishError: the broker did not confirm. Try again later.
        """
        self._end_expired()
        self._archived.run()
        own = self._app.own
        if own is not None:
            # Ends need no relay here: only this process listens, and it has announced them.
            while (mine := own.identities) and self._is_due(executions.anything_due) and self._rescue(mine):
                pass
            self._look()
            self._counts.run()
            self._early_cancels.run()
            return
        while self._is_due(executions.anything_due) and self._rescue():
            pass
        self._look_after_queues()
        self._look()
        self._counts.run()
        self._early_cancels.run()
        self._idle_queues.run()
        self._sweep_register()
        # Events are due after a lease at the earliest, and there is no index for them.
        if time.monotonic() >= self._look_at_events:
            while self._is_due(event_outbox.anything_due) and self._events():
                pass
            self._look_at_events = time.monotonic() + self._app.settings.lease_seconds / 3

    def _is_due(self, look: Callable[[Connection], bool]) -> bool:
        with self._app.engine.connect().execution_options(**READ_ONLY) as connection:
            return look(connection)

    def _rescue(self, only: Sequence[Identity] | None = None) -> bool:
        """Have executions of lost workers wait again, and what older workers have left. Returns whether there may be
        more.

        Args:
            only: these executions; they become this process's own.
        """
        app = self._app
        rescued = app.writer.call(app.writes.rescue, only)
        for execution in rescued:
            app.episodes.tell("Executions whose worker is gone are run again", f"execution {execution.id}")
        app.metrics.execution_rescued(len(rescued))
        if only is not None:
            for execution in rescued:
                app.writer.call(app.writes.take_over, execution)
            return len(rescued) >= RELAY_LIMIT
        adopted = app.writer.call(app.writes.adopt, None)
        return max(len(rescued), adopted) >= RELAY_LIMIT

    def _look_after_queues(self) -> None:
        app = self._app
        swept = app.writer.call(app.writes.look_after_queues, self._swept)
        self._swept = swept.after
        if swept.number:
            app.episodes.tell("Queues were offered that nobody had offered", f"{swept.number} of them")

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

    def _sweep_register(self) -> None:
        """Delete the rows of dead workers; looks from time to time only."""
        if time.monotonic() < self._look_at_register:
            return
        if self._is_due(register.anything_dead):
            with self._app.engine.begin() as connection:
                register.sweep(connection)
        self._look_at_register = time.monotonic() + self._app.settings.lease_seconds / 3

    def _events(self) -> bool:
        due = self._app.writer.call(self._app.writes.events_due, None)
        for execution in due:
            announce(self._app, execution)
        return len(due) >= RELAY_LIMIT
