"""An attempt is run, and how it ended is written down and told.

The thread that ran it goes on to the next message at once: the end is committed with whatever else gathers, and told of
when it is. So many ends may be unwritten at a time, and no more. Where somebody waits for the answer, that is made of
the row, which comes with the write.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from dspex import ErrorCode, ErrorDetail, Usage
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
    """Write down how an attempt ended, and tell where that was the end of the execution.

    Raises:
        WriterClosed: the process is shutting down.
    """
    written = _EndWrite(app, attempt, ended)
    app.unwritten.enter()
    written.write()


def run(app: Application, attempt: Attempt) -> None:
    """Run what is claimed, and end the attempt."""
    try:
        ended = attempt.run()
    except BaseException:
        app.in_flight.end(attempt)
        raise
    end(app, attempt, ended)


def run_alone(app: Application, request: Request) -> None:
    """Run what may take its process with it when nothing else can be lost: nothing is claimed, all ends are written."""
    with app.isolation.alone(request.identity) as waited:
        if not waited:
            return
        app.unwritten.wait(PATIENCE_SECONDS)
        taken = Taken(app, request, app.claimer.call(app.writes.claim, request))
        if taken.attempt is not None:
            run(app, taken.attempt)
            app.unwritten.wait(PATIENCE_SECONDS)


def give_up(app: Application, request: Request, reason: str) -> None:
    """End an execution that cannot be sent again, unless somebody runs it."""
    attempt = Taken(app, request, app.claimer.call(app.writes.claim, request)).attempt
    if attempt is not None:
        end(app, attempt, attempt.failed(ErrorDetail(code=ErrorCode.INTERNAL, message=reason)))


class _EndWrite:
    """One end on its way into the database. The writer's thread does what follows the commit, and waits for nothing."""

    def __init__(self, app: Application, attempt: Attempt, ended: End) -> None:
        self._app = app
        self._attempt = attempt
        self._ended = ended
        self._stored = True
        self._prepare()

    def _prepare(self) -> None:
        """The event is made before the commit, by the thread that ran the execution."""
        self._announcement = (
            prepared(self._app, self._ended, self._attempt) if isinstance(self._ended, Finish) else None
        )

    def write(self) -> None:
        """Hand it to the writer.

        Raises:
            WriterClosed: the process is shutting down.
        """
        writes = self._app.writes
        operation: Any = writes.finish if isinstance(self._ended, Finish) else writes.retry
        try:
            self._app.writer.submit(operation, self._ended, self._written)
        except WriterClosed:
            self._leave()
            raise

    def _written(self, written: Written, error: Exception | None) -> None:
        if error is None:
            if self._app.own is not None and isinstance(self._ended, Finish):
                self._app.own.discard(Identity(self._ended.id, self._ended.tenant))
            self._tell(written)
        elif isinstance(error, WriterClosed):
            logger.info("The end of execution %s was not written: it will be run again.", self._ended.id)
        elif self._stored and isinstance(self._ended, Finish):
            # Not to end it would have it run again, and come to this again.
            self._fail("What executions came to cannot be stored", error)
            self._stored = False
            self._ended = replace(self._ended, outputs=None, usage=Usage(), error=internal(error))
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
            return
        metrics.execution_ended(ended.status, None if ended.error is None else ended.error.code)
        if self._announcement is not None:
            self._announcement.send(written.execution)

    def _leave(self) -> None:
        self._app.in_flight.end(self._attempt)
        self._app.unwritten.leave()
