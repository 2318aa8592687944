"""`dspex worker` and `dspex deliverer`: a single process works itself; several are supervised."""

from __future__ import annotations

import logging
import os
import signal
import threading
from functools import partial
from typing import Any

from adapters.port import NotHere
from adapters.python_port import Limits
from adapters.python_port.environments import Environment
from dspex.errors import SettingsError
from workers.application.webhooks import DelivererProcess
from workers.application.wiring import Application, bootstrap
from workers.cli.begin import check_servers, collect_seldom, configure_logging
from workers.process import watchdog
from workers.process.open_files import allow_open_files
from workers.process.supervisor import KILL_MARGIN_SECONDS, Children, deliverer, supervise
from workers.process.switching import switch_seldom
from workers.process.worker import WorkerProcess
from workers.settings import Settings, load_settings
from workers.telemetry.metrics import require_free

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0
"""Seconds for running executions to end in a process that has lost a thread."""
DRAIN_MARGIN_SECONDS = 10.0
"""Seconds for giving claims back and for closing connections."""


def run_worker(parent: int | None, **given: Any) -> int:
    """Run until a signal, then drain. Returns the exit code. A process that loses a thread exits.

    Args:
        parent: the process id of the supervisor. The process drains, too, when the supervisor is gone.
        given: settings that were given on the command line.

    Raises:
        SettingsError, BrokerUnavailable: a setting is wrong or a server does not answer, at the start.
    """
    settings = load_settings(**given)
    configure_logging(settings)
    if settings.embedded:
        raise SettingsError(
            "DSPEX_BROKER_URL: a worker needs RabbitMQ (amqp://user:password@host:5672/); "
            "memory:// is for `dspex run`, which runs jobs itself"
        )
    _start(settings, parent)
    if parent is None:
        _tell_environments(settings)
    stop = stop_on_signals()
    if settings.processes > 1:
        require_free(settings.metrics_addresses)
        logger.info("Starting %d processes.", settings.processes)
        return supervise(settings, stop)
    allow_open_files(settings.threads)
    switch_seldom(settings.threads)
    app = bootstrap(settings)
    for address in settings.metrics_addresses:
        app.metrics.serve(address)
    process = WorkerProcess(app)
    # A single process also supervises the deliverer.
    children = Children(deliverer(settings) if parent is None else [])
    collect_seldom()
    _tell_modules(app)
    process.start()
    logger.info("Worker %s takes jobs, %d at once.", app.writes.lease.worker, settings.threads)
    _tell_served(app)
    while not stop.wait(1.0) and not _is_orphan(parent):
        children.replace_dead()
        if lost := watchdog.dead(process.threads):
            logger.critical("Thread %s has died: this process ends.", ", ".join(lost))
            watchdog.end_process(partial(_drain, app, process), DRAIN_SECONDS + DRAIN_MARGIN_SECONDS)
    logger.info("Draining.")
    children.terminate()
    drained = process.stop(settings.shutdown_seconds)
    app.close()
    code = children.wait(KILL_MARGIN_SECONDS)
    logger.info("Stopped.")
    return code if drained else 1


def _tell_environments(settings: Settings) -> None:
    """Tell what the environments of programs have, or why they cannot be used. Other programs run all the same."""
    for name, python in settings.environments.items():
        try:
            logger.info("Programs may run in the environment %s: %s.", name, Environment(name, python).check(Limits()))
        except NotHere as broken:
            logger.warning("%s.", broken.message)


def _tell_modules(app: Application) -> None:
    """Tell which modules of one's own programs can run here, in the log and as metrics."""
    for offered in app.programs.modules.offered():
        if offered.code is None:
            logger.warning("Programs may name the module %s.", offered)
        else:
            logger.info("Programs may run the module %s.", offered)
            app.metrics.module(offered.name, offered.code.distribution, offered.code.digest)


def _tell_served(app: Application) -> None:
    """Tell what this worker runs, where that is not everything, in the log and as metrics."""
    served = app.settings.served
    for kind, names in served.items():
        for name in names:
            app.metrics.serves(kind, name)
    if served:
        told = "; ".join(f"{kind} {', '.join(names)}" for kind, names in served.items())
        logger.info("It runs what is of %s. Everything else waits for other workers.", told)


def run_deliverer(parent: int | None) -> int:
    """Deliver webhooks until a signal, then wait for those in progress. Returns the exit code.

    Args:
        parent: the process id of the supervisor. The process drains, too, when the supervisor is gone.

    Raises:
        SettingsError, BrokerUnavailable: a setting is wrong or a server does not answer, at the start.
    """
    settings = load_settings()
    configure_logging(settings)
    if settings.embedded:
        raise SettingsError(
            "DSPEX_BROKER_URL: a deliverer needs RabbitMQ; with memory:// webhooks are sent by `dspex run`"
        )
    if not settings.webhook_threads:
        raise SettingsError("DSPEX_WEBHOOK_THREADS: 0 is for machines that deliver no webhooks")
    _start(settings, parent)
    stop = stop_on_signals()
    process = DelivererProcess(settings)
    process.start()
    logger.info("The deliverer sends webhooks, %d at once.", settings.webhook_threads)
    while not stop.wait(1.0) and not _is_orphan(parent):
        if lost := watchdog.dead(process.threads):
            logger.critical("Thread %s has died: this process ends.", ", ".join(lost))
            watchdog.end_process(partial(process.stop, DRAIN_SECONDS), DRAIN_SECONDS + DRAIN_MARGIN_SECONDS)
    process.stop(settings.shutdown_seconds)
    logger.info("The deliverer has stopped.")
    return 0


def _is_orphan(parent: int | None) -> bool:
    if parent is None or os.getppid() == parent:
        return False
    logger.error("The supervisor is gone: draining.")
    return True


def _drain(app: Application, process: WorkerProcess) -> None:
    """Wait a short time for running executions, unless the writer is gone."""
    if not watchdog.dead(app.writer.threads):
        process.stop(min(DRAIN_SECONDS, app.settings.shutdown_seconds), broken=True)
        app.close()


def _start(settings: Settings, parent: int | None) -> None:
    """See `check_servers`. Only the first process of a machine logs a warning about the broker."""
    weakness = check_servers(settings)
    if weakness and parent is None:
        logger.warning("%s", weakness)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGHUP and Ctrl-C set. A second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, handle)
    return stop
