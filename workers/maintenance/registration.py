"""The registration of this process among the live workers: renewed with its leases, taken away at its end.

Nobody waits for it, and nothing depends on it: where it cannot be written, `dspex workers` does not show this process.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import replace
from importlib import metadata

from sqlalchemy import Connection

from store.database.failures import describe
from store.queues import register
from store.queues.register import State, Worker
from workers.application.wiring import Application
from workers.persistence.group_commit import WriterClosed

logger = logging.getLogger(__name__)

DISTRIBUTION = "dspex-server"
LEAVE_SECONDS = 2.0
"""How long a stop waits for the database; without it, the row goes with its lease."""


class Registration:
    """The row of this process. `renew` is for one thread at a time."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._began = time.monotonic()
        self._renew_at = 0.0
        self._left = False
        self._worker = Worker(
            name=app.writes.lease.worker,
            host=socket.gethostname()[:64],
            pid=os.getpid(),
            version=_version(),
            state=State.WORKING if app.own is None else State.OWN,
            serves=app.settings.served,
            places=app.settings.threads,
        )

    def renew(self) -> None:
        """Write the row, if it is time to. Does not wait.

        Raises:
            WriterClosed: the process is shutting down.
        """
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + self._app.writes.lease.seconds / 3
            self._app.writer.post(self._app.writes.each, self._write)

    def drain(self) -> None:
        """Write that this process takes no more, before it ends."""
        self._worker = replace(self._worker, state=State.DRAINING)
        with suppress(WriterClosed):
            self._app.writer.post(self._app.writes.each, self._write)

    def leave(self) -> None:
        """Take the row away."""
        self._left = True  # for a write that is still to come
        try:
            self._app.writer.call(self._app.writes.each, self._delete, LEAVE_SECONDS)
        except (TimeoutError, WriterClosed) as error:
            logger.debug("The row of this process goes with its lease: %s", error)
        except Exception as error:  # noqa: BLE001 - nothing depends on it
            logger.warning("The row of this process in the register goes with its lease: %s", describe(error))

    def _write(self, connection: Connection) -> None:
        if not self._left:
            worker, age = replace(self._worker, taken=len(self._app.in_flight)), time.monotonic() - self._began
            register.renew(connection, worker, lease_seconds=self._app.writes.lease.seconds, age=age)

    def _delete(self, connection: Connection) -> None:
        register.leave(connection, self._worker.name)


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # in a checkout that is not installed
        return "unknown"
