"""A worker process of the fault tests: `dspex worker` with an adapter that tells what it does, and ways to die.

Nothing of it is in the product: it wraps the product's methods from outside, as the environment says.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final

from dramatiq.worker import ConsumerThread, WorkerThread

from adapters.registry import BUILT_IN
from dspex.errors import DspexError
from store.database.engine import make_engine
from store.executions import Finish, Retry
from tests.faults import adapter, failpoints, unprotected
from tests.faults.history import History
from workers.application import wiring as application
from workers.cli.worker import run_worker
from workers.persistence.operations import Writes, Written

POOL: Final = "DSPEX_TEST_POOL"
"""The environment variable that sets how many connections to the database the worker may have."""


def main(environment: Mapping[str, str], log: str) -> None:
    """Run one, as the target of a process that was forked for it; it ends with the worker's exit code."""
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, sys.stderr.fileno())
    os.dup2(descriptor, sys.stdout.fileno())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    history = History(Path(environment[adapter.HISTORY]))
    BUILT_IN[adapter.NAME] = adapter.__name__
    unprotected.switch_off()
    failpoints.arm(history)
    _tell_of_refused(history)
    _tell_of_threads(history)
    if pool := environment.get(POOL):
        application.make_engine = partial(make_engine, pool_size=int(pool))  # type: ignore[attr-defined]
    try:
        code = run_worker(processes=1, threads=None, parent=None)
    except DspexError as error:
        print(error.message, file=sys.stderr)
        code = 2
    sys.exit(code)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _tell_of_refused(history: History) -> None:
    """The end of an attempt that changed nothing, because another worker has the execution, is told."""
    for name in ("finish", "retry"):
        write = getattr(Writes, name)

        @wraps(write)
        def told(self: Writes, connection: Any, ends: Sequence[Finish | Retry], write: Any = write) -> list[Written]:
            written: list[Written] = write(self, connection, ends)
            for item, one in zip(ends, written, strict=True):
                if not one.held:
                    history.record("refused", id=item.id, pid=os.getpid())
            return written

        setattr(Writes, name, told)


def _tell_of_threads(history: History) -> None:
    """SIGUSR1: tell how many of the threads that were started to take and to run messages live."""
    started: list[threading.Thread] = []
    for kind in (ConsumerThread, WorkerThread):
        start = kind.start

        def noted(thread: Any, start: Any = start) -> None:
            started.append(thread)
            start(thread)

        kind.start = noted  # type: ignore[method-assign, assignment]

    def tell(*_: object) -> None:
        alive = sum(thread.is_alive() for thread in started)
        history.record("threads", pid=os.getpid(), alive=alive, started=len(started))

    signal.signal(signal.SIGUSR1, tell)
