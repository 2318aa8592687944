"""The maintenance threads: the heartbeat renews leases, the relay sees to what is lost or due, a third removes blobs.

They run in every worker process; any number may run together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from dspex import ErrorCode, ErrorDetail
from dspex.backoff import doubled
from dspex.errors import BlobsUnavailable, PublishError
from store.database.failures import describe, passing
from workers.application.wiring import Application
from workers.execution.attempt import Attempt
from workers.execution.completion import end
from workers.maintenance.blobs import UnusedBlobs, leave_mark
from workers.maintenance.registration import Registration
from workers.maintenance.relay import Relay
from workers.persistence.group_commit import WriterClosed
from workers.security.audit import audit

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 2.0
RELAY_SECONDS = 1.0
BLOBS_SECONDS = 30.0
MAX_PAUSE_SECONDS = 30.0
"""The longest pause between attempts while a server is unavailable, in seconds."""


class MaintenanceThreads:
    """Starts and stops the threads; `look`: see `Relay`."""

    def __init__(self, app: Application, look: Callable[[], None]) -> None:
        self._app = app
        self._stop = threading.Event()
        self._registration = Registration(app)
        lease = app.settings.lease_seconds
        # The heartbeat also learns of cancels, so it must be frequent enough for somebody who waits.
        self.threads = [
            self._thread("heartbeat", min(lease / 3, CANCEL_SECONDS), self._heartbeat),
            self._thread("relay", min(lease / 3, RELAY_SECONDS), Relay(app, look).run),
        ]
        # A process without servers is short-lived: it leaves the removal to `dspex blob prune`.
        if app.blobs is not None and not app.settings.embedded:
            self.threads.append(self._thread("blobs", BLOBS_SECONDS, UnusedBlobs(app).run))

    def start(self) -> None:
        """Start the threads."""
        if self._app.blobs is not None and self._app.settings.embedded:
            with suppress(BlobsUnavailable):  # it is told by what needs the store
                leave_mark(self._app, self._app.blobs)
        self._registration.renew()
        for thread in self.threads:
            thread.start()

    def drain(self) -> None:
        """Tell that this process takes no more."""
        self._registration.drain()

    def stop(self) -> None:
        """Stop the threads, wait for them, and leave the register."""
        self._stop.set()
        for thread in self.threads:
            thread.join(timeout=5)
        self._registration.leave()

    def _thread(self, name: str, seconds: float, work: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._every, args=(seconds, work), name=name, daemon=True)

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        failures = 0
        while not self._stop.wait(doubled(seconds, MAX_PAUSE_SECONDS, failures)):
            try:
                audit.end_episodes()
                self._app.episodes.go_on()
                work()
            except WriterClosed:
                return
            except Exception as error:
                failures += 1
                name = threading.current_thread().name
                if not isinstance(error, PublishError) and not passing(error):
                    logger.exception("The %s failed; it goes on.", name)
                elif failures == 1:
                    logger.warning("The %s waits for a server: %s", name, describe(error))
            else:
                failures = 0

    def _heartbeat(self) -> None:
        app = self._app
        self._registration.renew()
        if not app.in_flight:
            return
        heartbeat = app.writer.call(app.writes.heartbeat, app.in_flight.executions)
        app.in_flight.cancel(heartbeat.cancel_requested)
        attempt: Attempt
        for attempt in app.in_flight.overdue:
            program = attempt.request.program_id
            app.episodes.tell(
                f"Attempts of program {program} run beyond their time; their results will be discarded",
                f"execution {attempt.claimed.id}",
                level=logging.ERROR,
            )
            app.in_flight.end(attempt)
            limit = attempt.claimed.policy.time_limit
            message = f"it was not stopped by its adapter; policy.time_limit is {limit:g} s"
            end(app, attempt, attempt.failed(ErrorDetail(code=ErrorCode.TIMEOUT, message=message)))
