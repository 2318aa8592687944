"""Who runs the executions of a run: there once there is one to run. What has all run before needs nobody."""

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
    """The parts of this process that send, and, without RabbitMQ or when asked, those that run what was sent.

    To load and to start them takes as long as to look at thousands of rows that have run.
    """

    def __init__(self, settings: Settings, options: RunOptions) -> None:
        self.settings = settings
        self.runs_here = settings.embedded or options.with_worker
        """Whether this process runs what is sent."""
        self._run_others = options.run_others or not settings.embedded
        self._app: Application | None = None
        self._worker: WorkerProcess | None = None

    def begin(self) -> Application:
        """Have somebody take the jobs; the first time it is called, they begin.

        Raises:
            RunFailed: nobody does.
        """
        if self._app is None:
            from workers.application.wiring import bootstrap

            self._app = bootstrap(self.settings, run_others=self._run_others)
            collect_seldom()
            if self.runs_here:
                from workers.process.worker import WorkerProcess

                self._worker = WorkerProcess(self._app)
                self._worker.start()
            elif not self.somebody_works():
                raise RunFailed(
                    "no worker takes jobs from RabbitMQ: start one with `dspex worker`, or add --with-worker"
                )
        return self._app

    def somebody_works(self) -> bool:
        """Whether anybody takes jobs, as far as this process can tell."""
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
        """What this process was asked to run, where it leaves alone what others left, and has not ended yet."""
        return self._app.own.identities if self._app is not None and self._app.own is not None else []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what runs end."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.stop(self.settings.shutdown_seconds)

    def close(self) -> None:
        """Close every part."""
        if self._app is not None:
            self._app.close()
