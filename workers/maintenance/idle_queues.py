"""Deletes the rows of queues that nobody needs any more, from time to time."""

from __future__ import annotations

import time

from store.queues.forgetting import forget
from store.queues.keys import QueueKey
from workers.application.wiring import Application

LOOK_SECONDS = 10.0
LOOKED_AT = 500
"""How many queues are looked at each time."""


class IdleQueues:
    """For one thread. Any number of processes may do this together."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._looked: QueueKey | None = None  # up to where queues were looked at
        self._look_at = time.monotonic() + LOOK_SECONDS

    def run(self) -> None:
        """Look at some queues, if it is time to."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        with self._app.engine.begin() as connection:
            self._looked = forget(connection, self._looked, LOOKED_AT).after
