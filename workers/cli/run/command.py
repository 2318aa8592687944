"""The command: everything that can be wrong is looked at before anything is changed."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from adapters.port import ProgramSpec
from dspex.errors import DspexError, SettingsError
from dspex.topology import EXECUTIONS_QUEUE
from store import executions
from store.engine import READ_ONLY
from workers.application import Application, bootstrap
from workers.brokers import amqp
from workers.cli.inputs.reading import open_inputs
from workers.cli.operator import operator_of
from workers.cli.output import cell
from workers.cli.run.options import RunFailed, RunOptions, load_signature
from workers.cli.run.program import POLL_SECONDS
from workers.cli.run.results import Results, open_results
from workers.cli.run.session import Session
from workers.cli.run.stop import Stop, Stopped
from workers.cli.worker import check_servers, collect_seldom, configure_logging
from workers.local import left_by_others
from workers.process import WorkerProcess
from workers.settings import Settings, load_settings

QUIET_SECONDS = 2.5


def run(options: RunOptions) -> int:
    """Run the command; returns its exit code.

    Raises:
        DspexError: wrong usage, a wrong setting, or a server that does not answer.
    """
    if options.inputs_file and options.pairs:
        raise SettingsError("--inputs and --input: give one of them")
    signature = load_signature(options.signature)
    if options.expect and options.expect not in {f.name for f in signature.outputs}:
        raise SettingsError(f"--expect: '{options.expect}' is not an output of the signature")
    if options.output and options.inputs_file and _same(options.output, Path(options.inputs_file)):
        raise SettingsError("--output: this is the file of --inputs, which it would overwrite: choose another")
    configuration = options.configuration
    console, stop = Console(stderr=True), Stop()
    with stop.listening():
        with stop.anywhere():
            settings = load_settings()
            configure_logging(settings)
            tenant = operator_of(settings, options.tenant).tenant
        with (
            open_inputs(signature, options.inputs_file, options.pairs, options.reading) as inputs,
            open_results(options.output, options.output_format, signature) as results,
        ):
            for said in inputs.said:
                console.print(cell(said), highlight=False, soft_wrap=True)
            with stop.anywhere():
                check_servers(settings)
            app = bootstrap(settings, run_others=options.run_others or not settings.embedded)
            collect_seldom()
            session = Session(app, options, console, results, stop, tenant)
            try:
                with _ending(session, results), _working(app, settings, options) as runs_here:
                    session.prepare(ProgramSpec(options.adapter, signature, configuration), runs_here=runs_here)
                    session.run(inputs)
                    if options.run_others and runs_here:
                        _finish_others(app, stop)
                if app.own is not None and (found := left_by_others(app, tenant)):
                    told = f"{found} of other runs wait in this database, and are left alone: --run-others runs them"
                    console.print(cell(told), style="yellow", highlight=False, soft_wrap=True)
            except Stopped as stopped:
                session.summary.show(console, "Interrupted")
                console.print("Run the same command again to go on.")
                return stopped.exit_code
            except DspexError:
                if session.summary.any:
                    session.summary.show(console, "Not finished")
                raise
            finally:
                app.close()
    session.summary.show(console, signature.name)
    return 0 if session.summary.clean else 1


def _finish_others(app: Application, stop: Stop) -> None:
    """Wait until nothing that is due is left, and nothing runs: the relay has looked twice by then."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        stop.check()
        with app.engine.connect().execution_options(**READ_ONLY) as connection:
            busy = executions.anything_due(connection)
        if busy or app.running:
            quiet_since = time.monotonic()
        time.sleep(POLL_SECONDS)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _ending(session: Session, results: Results) -> Generator[None]:
    """Whatever ends the run, what ran is among the results."""
    whole = False
    try:
        yield
        whole = True
    finally:
        session.settle()
        if whole or session.summary.any:
            results.keep(whole=whole)


@contextmanager
def _working(app: Application, settings: Settings, options: RunOptions) -> Generator[bool]:
    """Have somebody take the jobs; with the in-process broker, or when asked, this process does. Yields whether."""
    worker = WorkerProcess(app) if settings.embedded or options.with_worker else None
    if worker is None and not amqp.consumers(settings.broker_url, EXECUTIONS_QUEUE):
        raise RunFailed("no worker takes jobs from RabbitMQ: start one with `dspex worker`, or add --with-worker")
    if worker is not None:
        worker.start()
    try:
        yield worker is not None
    finally:
        if worker is not None:
            worker.stop(settings.shutdown_seconds)
