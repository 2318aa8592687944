"""The command `dspex run`. Checks everything before it changes anything."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from sqlalchemy import Engine

from adapters.own_modules import OwnModules
from adapters.port import AdapterError
from adapters.registry import AdapterRegistry
from dspex.errors import DspexError, SettingsError
from store import executions
from store.database.engine import READ_ONLY, make_engine
from workers.application.own import left_by_others, webhooks_that_wait
from workers.cli.begin import check_servers, collect_seldom, configure_logging
from workers.cli.inputs.reading import open_inputs
from workers.cli.operator import operator_of
from workers.cli.output import cell
from workers.cli.run.crew import Crew
from workers.cli.run.options import RunFailed, RunOptions
from workers.cli.run.program import POLL_SECONDS
from workers.cli.run.results import Results, open_results
from workers.cli.run.session import Session
from workers.cli.run.stop import Stop, Stopped
from workers.cli.run.subject import Subject, find_subject, read_given
from workers.settings import Settings, load_settings

QUIET_SECONDS = 2.5


def run(options: RunOptions) -> int:
    """Run the command. Returns its exit code.

    Raises:
        DspexError: wrong usage, a wrong setting, or a server that does not answer.
    """
    if options.inputs_file and options.pairs:
        raise SettingsError("--inputs and --input: give one of them")
    given = read_given(options)
    if options.output and options.inputs_file and _same(options.output, Path(options.inputs_file)):
        raise SettingsError("--output: this is the file of --inputs, which it would overwrite: choose another")
    console, stop = Console(stderr=True), Stop()
    with stop.listening():
        with stop.anywhere():
            settings = load_settings()
            configure_logging(settings)
            tenant = operator_of(settings, options.tenant).tenant
            subject = given if isinstance(given, Subject) else _found(settings, options, tenant)
        signature = subject.signature
        if options.expect and options.expect not in {f.name for f in signature.outputs}:
            raise SettingsError(f"--expect: '{options.expect}' is not an output of the signature")
        with (
            open_inputs(signature, options.inputs_file, options.pairs, options.reading) as inputs,
            open_results(options.output, options.output_format, signature) as results,
        ):
            for said in (*subject.said, *inputs.said):
                console.print(cell(said), highlight=False, soft_wrap=True)
            with stop.anywhere():
                check_servers(settings)
            collect_seldom(after_a_look=False)
            engine = make_engine(settings.database_url, lease_seconds=settings.lease_seconds)
            crew = Crew(settings, options)
            session = Session(engine, crew, options, console, results, stop, tenant)
            try:
                with _ending(session, results), crew:
                    session.prepare(_with_code(subject, settings) if crew.runs_here else subject)
                    session.run(inputs)
                    if options.run_others and crew.runs_here:
                        crew.begin()
                        _finish_others(engine, crew, stop)
                if settings.embedded and not options.run_others:
                    _tell_of_others(engine, crew, console, tenant)
            except Stopped as stopped:
                session.summary.show(console, "Interrupted")
                console.print("Run the same command again to go on.")
                return stopped.exit_code
            except DspexError:
                if session.summary.any:
                    session.summary.show(console, "Not finished")
                raise
            finally:
                crew.close()
                engine.dispose()
    session.summary.show(console, signature.name)
    return 0 if session.summary.clean else 1


def _with_code(subject: Subject, settings: Settings) -> Subject:
    """With the code of its module: what ran on other code, runs again."""
    configuration = subject.spec.configuration
    try:
        with closing(AdapterRegistry(environments=settings.environments)) as adapters:
            modules = OwnModules(settings.own_modules, adapters.find_module)
            code = modules.find(configuration.module, configuration.environment)
    except AdapterError as error:
        raise RunFailed(f"the program cannot be built: {error.message}") from None
    return replace(subject, spec=replace(subject.spec, code=code))


def _found(settings: Settings, options: RunOptions, tenant: str) -> Subject:
    check_servers(settings)
    engine = make_engine(settings.database_url)
    try:
        return find_subject(engine, options, tenant)
    finally:
        engine.dispose()


def _finish_others(engine: Engine, crew: Crew, stop: Stop) -> None:
    """Wait until no execution is due or runs, after the relay has looked twice."""
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        stop.check()
        with engine.connect().execution_options(**READ_ONLY) as connection:
            busy = executions.anything_due(connection)
        if busy or crew.busy:
            quiet_since = time.monotonic()
        time.sleep(POLL_SECONDS)


def _tell_of_others(engine: Engine, crew: Crew, console: Console, tenant: str) -> None:
    told = []
    if found := left_by_others(engine, tenant, own=crew.own):
        told.append(f"{found} of other runs wait in this database, and are left alone: --run-others runs them")
    if found := webhooks_that_wait(engine, tenant):
        told.append(f"To be sent from this database: {found}; --run-others sends what is due")
    for line in told:
        console.print(cell(line), style="yellow", highlight=False, soft_wrap=True)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _ending(session: Session, results: Results) -> Generator[None]:
    """Collect the results of ended executions, however the run ends."""
    whole = False
    try:
        yield
        whole = True
    finally:
        session.settle()
        if whole or session.summary.any:
            results.keep(whole=whole)
