"""One worker process: consumers, threads that run actors, and maintenance. It drains when it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from store.database.identity import Identity
from workers.application.gates import apply_limits, read_limits
from workers.application.webhooks import make_deliverer
from workers.application.wiring import Application
from workers.brokers.dramatiq_worker import abandon_actors, end_actors, make_worker, name_threads, threads_of
from workers.execution.admission import Intake
from workers.handlers.actors import declare_actors
from workers.maintenance.threads import MaintenanceThreads
from workers.maintenance.waker import Waker
from workers.process.watchdog import dead

logger = logging.getLogger(__name__)

RELEASE_SECONDS = 5.0
"""How long a stop waits for an unreachable database, in seconds."""


class WorkerProcess:
    """Runs the actors of an application. `start` and `stop` may each be called once.

    Raises:
        SettingsError: a limit of the settings is wrong.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._limits = read_limits(app.settings.limits)
        declare_actors(app)
        self._intake = Intake(app)
        self._worker = make_worker(
            app.broker,
            self._intake,
            threads=self._intake.threads,
            timeout_ms=100 if app.settings.embedded else 1000,
            prefetch=app.settings.prefetch_count,
        )
        self._maintenance = MaintenanceThreads(app, self._intake.look_around)
        self._waker = Waker(app, self._intake.places.look)
        app.waking.later = self._waker.later
        # Without a server it delivers webhooks itself; otherwise another process does.
        delivers = app.settings.embedded and app.settings.webhook_threads > 0
        own = app.own
        mine = None if own is None else lambda: own.webhooks
        self._deliverer = (
            make_deliverer(app.settings, app.engine, app.writer, app.publisher, mine) if delivers else None
        )

    @property
    def threads(self) -> list[threading.Thread]:
        """All threads that live from `start` to `stop`, including the application's."""
        return [
            *threads_of(self._worker),
            *self._maintenance.threads,
            self._waker.thread,
            *{*self._app.claimer.threads, *self._app.writer.threads},
            *self._app.metrics.threads,
            *(self._deliverer.threads if self._deliverer is not None else ()),
        ]

    def start(self) -> None:
        """Start to consume."""
        apply_limits(self._app.writer, self._app.writes, self._limits)
        self._worker.start()
        name_threads(self._worker)
        self._maintenance.start()
        self._waker.start()
        if self._deliverer is not None:
            self._deliverer.start()

    def stop(self, seconds: float, *, broken: bool = False) -> bool:
        """Take no more messages, wait up to `seconds` for running executions, and give the others back.

        Args:
            broken: the process has lost a thread, so it may have claims of which no thread knows any more.

        Returns:
            Whether all have ended or were given back. If not, the others are rescued when their leases run out.
        """
        deadline = time.monotonic() + seconds
        self._maintenance.drain()
        self._waker.stop()
        self._intake.close()
        if broken and dead(self._app.claimer.threads):
            # It may have died between a commit and telling of it: places will not be free, and leases will run out.
            self._give_back(besides=self._app.in_flight.executions)
        else:
            self._intake.wait(seconds)
        going_on = end_actors(self._worker, deadline)
        written = self._app.unwritten.wait(max(0.0, deadline - time.monotonic()))
        given_back = True
        if broken or not written or self._app.in_flight or any(thread.is_alive() for thread in going_on):
            # Before this process is gone, so that the next worker can choose them at once.
            given_back = self._give_back()
            abandon_actors(self._worker)
        if self._deliverer is not None:
            if self._app.own is not None:  # no other process sends its webhooks
                self._deliverer.finish(max(0.0, deadline - time.monotonic()))
            self._deliverer.stop(max(0.0, deadline - time.monotonic()))
        self._maintenance.stop()
        self._worker.stop()
        return given_back

    def _give_back(self, besides: Collection[Identity] = ()) -> bool:
        """Give the claims back that this process has not ended. Returns whether that was possible."""
        try:
            given_back = self._app.writer.call(self._app.writes.release, besides, RELEASE_SECONDS)
        except TimeoutError:
            logger.error("Executions did not end in time, and were not given back: their leases run out.")
            return False
        if given_back:
            logger.warning("%d executions did not end in time and are given back.", given_back)
        return True
