"""Removes the early cancels of workers that have died, from time to time."""

from __future__ import annotations

import time

from store.database.engine import READ_ONLY
from store.executions import early
from workers.application.wiring import Application

LOOK_SECONDS = 20.0


class EarlyCancels:
    """For one thread. Any number of processes may do this together."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._look_at = 0.0

    def run(self) -> None:
        """Remove what was left, if it is time to look."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        with self._app.engine.connect().execution_options(**READ_ONLY) as connection:
            found = early.anything_old(connection)
        if found:
            self._app.write(early.sweep)
