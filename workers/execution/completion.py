"""Runs an attempt, writes its end, and publishes it.

The thread that ran the attempt continues with the next message at once. The end is committed together with others, and
published after the commit. The number of unwritten ends is limited. If a sender waits for the answer, the answer is
made from the row that the write returns.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from dspex import Usage
from store.database.identity import Identity
from store.executions import Finish, Request
from workers.application.in_flight import PATIENCE_SECONDS
from workers.application.wiring import Application
from workers.execution.attempt import Attempt, End
from workers.execution.event_publisher import prepared
from workers.execution.taken import Taken
from workers.outbound.error_details import internal
from workers.persistence.group_commit import WriterClosed
from workers.persistence.operations import Written

logger = logging.getLogger(__name__)


def end(app: Application, attempt: Attempt, ended: End) -> None:
    """Write the end of an attempt, and publish it if the execution has ended.

    Raises:
        WriterClosed: the process is shutting down.
    """
    written = _EndWrite(app, attempt, ended)
    app.unwritten.enter()
    written.write()


def run(app: Application, attempt: Attempt) -> None:
    """Run a claimed attempt, and end it."""
    started = time.monotonic()
    try:
        ended = attempt.run()
    except BaseException:
        app.in_flight.end(attempt)
        raise
    app.pace.ended(time.monotonic() - started)
    end(app, attempt, ended)


def run_alone(app: Application, request: Request) -> None:
    """Run an execution that may crash its process, when no other is claimed and all ends are written."""
    with app.isolation.alone(request.identity) as waited:
        if not waited:
            return
        app.unwritten.wait(PATIENCE_SECONDS)
        taken = Taken(app, request, app.claimer.call(app.writes.claim_alone, request))
        if taken.attempt is not None:
            run(app, taken.attempt)
            app.unwritten.wait(PATIENCE_SECONDS)


class _EndWrite:
    """The write of one end. What follows the commit runs in the writer's thread and must not block."""

    def __init__(self, app: Application, attempt: Attempt, ended: End) -> None:
        self._app = app
        self._attempt = attempt
        self._ended = ended
        self._stored = True
        self._prepare()

    def _prepare(self) -> None:
        """Prepare the event before the commit, in the thread that ran the execution."""
        self._announcement = (
            prepared(self._app, self._ended, self._attempt) if isinstance(self._ended, Finish) else None
        )

    def write(self) -> None:
        """Submit the end to the writer.

        Raises:
            WriterClosed: the process is shutting down.
        """
        writes = self._app.writes
        operation: Any = writes.finish if isinstance(self._ended, Finish) else writes.retry
        try:
            self._app.writer.submit(operation, self._ended, self._written, self._app.may_gather, here=True)
        except WriterClosed:
            self._leave()
            raise

    def _written(self, written: Written, error: Exception | None) -> None:
        if error is None:
            if self._app.own is not None and isinstance(self._ended, Finish):
                self._app.own.discard(Identity(self._ended.id, self._ended.tenant))
            try:
                self._tell(written)
            finally:
                self._leave()
            return
        if isinstance(error, WriterClosed):
            logger.info("The end of execution %s was not written: it will be run again.", self._ended.id)
        elif self._stored and isinstance(self._ended, Finish):
            # Ended as failed: otherwise it would run again with the same result.
            self._fail("Results of executions cannot be stored", error)
            self._stored = False
            self._ended = replace(
                self._ended, outputs=None, extra_outputs={}, usage=Usage(), trace=None, error=internal(error)
            )
            self._prepare()
            self.write()
            return
        else:
            self._fail("Ends of executions cannot be written", error)
        self._leave()

    def _fail(self, what: str, error: Exception) -> None:
        self._app.episodes.tell(what, f"execution {self._ended.id}", level=logging.ERROR, error=error)

    def _tell(self, written: Written) -> None:
        ended, metrics = self._ended, self._app.metrics
        if not written.held:
            self._app.episodes.tell("Results are discarded, since another worker took over", f"execution {ended.id}")
            metrics.stale_write()
            return
        if not isinstance(ended, Finish):
            program, code = self._attempt.request.program_id, ended.error.code
            self._app.episodes.tell(
                f"Attempts of program {program} fail for now ({code})",
                f"execution {ended.id}, again in {ended.delay:.1f} s",
                level=logging.INFO,
            )
            metrics.retry(ended.error.code)
            self._app.waking.later(ended.delay, None)
            return
        metrics.execution_ended(ended.status, None if ended.error is None else ended.error.code)
        if self._announcement is not None:
            self._announcement.send(written.execution)

    def _leave(self) -> None:
        if self._app.writes.gates.let_go:
            self._app.waking.look()
        self._app.in_flight.end(self._attempt)
        self._app.unwritten.leave()
