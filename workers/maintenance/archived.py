"""Ends what waits of archived programs."""

from __future__ import annotations

from sqlalchemy import Connection

from store.database.engine import READ_ONLY
from store.executions import archived
from workers.application.wiring import Application
from workers.execution.event_publisher import tell_end

AT_ONCE = 200
"""How many executions end in one transaction, which are read whole, and whose events are sent together."""


class Archived:
    """For one thread. Any number of processes may do this together."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def run(self) -> None:
        """End everything that waits of archived programs now."""
        app = self._app
        with app.engine.connect().execution_options(**READ_ONLY) as connection:
            more = archived.anything_held(connection)
        while more:
            ended, more = app.write(self._end)
            for execution in ended:
                tell_end(app, execution)

    def _end(self, connection: Connection) -> archived.Ended:
        writes = self._app.writes
        return archived.end_waiting(
            connection, writes.shard, AT_ONCE, event_in=writes.lease.seconds, webhook_in=writes.webhook_in
        )
