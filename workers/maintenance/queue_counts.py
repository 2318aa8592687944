"""Keeps the counts of what waits: adds up what has moved, and compares some of them with the rows from time to time."""

from __future__ import annotations

import logging
import time

from store.database.engine import READ_ONLY
from store.database.tenancy import ALL
from store.queues import counts, figures, register
from store.queues.counts import Counted
from store.queues.unserved import unserved
from workers.application.wiring import Application

FOLD_LIMIT = 2_000
REPAIR_SECONDS = 10.0
REPAIR_LIMIT = 50
METRICS_SECONDS = 15.0


class QueueCounts:
    """For one thread. Any number of processes may do this together."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._repaired: Counted | None = None
        self._repair_at = time.monotonic() + REPAIR_SECONDS
        self._shown_at = 0.0

    def run(self) -> None:
        """Add up everything that has moved until now; every ten seconds, look at some counts."""
        engine = self._app.engine
        with engine.connect().execution_options(**READ_ONLY) as connection:
            more = counts.anything_moved(connection)
        while more:
            with engine.begin() as connection:
                more = counts.fold(connection, FOLD_LIMIT) == FOLD_LIMIT
        if self._app.settings.metrics_address and time.monotonic() >= self._shown_at:
            self._shown_at = time.monotonic() + METRICS_SECONDS
            self._show()
        if time.monotonic() < self._repair_at:
            return
        self._repair_at = time.monotonic() + REPAIR_SECONDS
        with engine.begin() as connection:
            self._repaired, corrected = counts.repair(connection, self._repaired, REPAIR_LIMIT)
        if corrected:
            self._app.episodes.tell(
                "Counts of waiting executions were corrected, as after workers of an older version",
                f"{corrected} queues",
                level=logging.INFO,
            )

    def _show(self) -> None:
        scope = figures.Scope(ALL)
        with self._app.engine.connect().execution_options(**READ_ONLY) as connection:
            lanes, now = figures.lanes(connection, scope), counts.clock(connection)
            workers = register.count_by_lane(connection)
            in_vain = unserved(connection, register.read(connection), scope)
        for row in lanes:
            if row.lane is not None:
                since = (now - row.oldest_at).total_seconds() if row.oldest_at is not None else 0.0
                self._app.metrics.backlog(row.lane, row.waiting, max(since, 0.0))
        for lane, number in workers.items():
            self._app.metrics.fleet(lane, number, sum(one.lane == lane for one in in_vain))
