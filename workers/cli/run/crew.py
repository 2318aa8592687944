"""Makes sure that workers run the executions of a run; started only if there is something to run."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from dspex.amqp.topology import EXECUTIONS_QUEUE
from store.database.identity import Identity
from workers.cli.begin import collect_seldom
from workers.cli.run.options import RunFailed, RunOptions
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.application.wiring import Application
    from workers.process.worker import WorkerProcess


class Crew:
    """The parts of this process that send executions and, without RabbitMQ or on request, run them.

    Loading and starting them takes as long as reading thousands of ended executions.
    """

    def __init__(self, settings: Settings, options: RunOptions) -> None:
        self.settings = settings
        self.runs_here = settings.embedded or options.with_worker
        """Whether this process runs the executions."""
        self._run_others = options.run_others or not settings.embedded
        self._app: Application | None = None
        self._worker: WorkerProcess | None = None

    def begin(self) -> Application:
        """Make sure that a worker takes the jobs. The first call starts the parts.

        Raises:
            RunFailed: no worker takes jobs.
        """
        if self._app is None:
            from workers.application.wiring import bootstrap

            self._app = bootstrap(self.settings, run_others=self._run_others)
            collect_seldom()
            if self.runs_here:
                from workers.process.open_files import allow_open_files
                from workers.process.switching import switch_seldom
                from workers.process.worker import WorkerProcess

                allow_open_files(self.settings.threads)
                switch_seldom(self.settings.threads)
                self._worker = WorkerProcess(self._app)
                self._worker.start()
            elif not self.somebody_works():
                raise RunFailed(
                    "no worker takes jobs from RabbitMQ: start one with `dspex worker`, or add --with-worker"
                )
        return self._app

    def somebody_works(self) -> bool:
        """Whether a worker takes jobs, as far as this process can tell."""
        if self.settings.embedded:
            return True
        from workers.brokers import amqp

        return bool(amqp.consumers(self.settings.broker_url, EXECUTIONS_QUEUE))

    @property
    def busy(self) -> bool:
        """Whether an execution runs in this process."""
        return self._app is not None and bool(self._app.in_flight)

    @property
    def own(self) -> list[Identity]:
        """The executions of this process that have not ended, if it leaves those of others alone."""
        return self._app.own.identities if self._app is not None and self._app.own is not None else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for running executions."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.stop(self.settings.shutdown_seconds)

    def close(self) -> None:
        """Close every part."""
        if self._app is not None:
            self._app.close()
