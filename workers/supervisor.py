"""The processes of `dspex worker`: starts them, replaces those that die, and drains them all.

A worker process runs jobs; beside them one process delivers webhooks, so that no receiver ever slows a job.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from workers.environment import PREFIX
from workers.settings import Settings

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""A process that dies is replaced after this pause; one that keeps dying does not keep a core busy."""
KILL_MARGIN_SECONDS = 10.0


class Child(NamedTuple):
    """A process as it is started: the arguments of `dspex`, and what its environment has beside ours."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}  # noqa: RUF012


def supervise(settings: Settings, stop: threading.Event) -> int:
    """Keep `settings.processes` worker processes and a deliverer running until `stop` is set, then drain them.

    Returns:
        The exit code: 0 where every process drained, 1 where one had to be killed.
    """
    children = Children([*_workers(settings), *deliverer(settings)])
    while not stop.wait(0.2):
        children.replace_dead(stop)
    children.terminate()
    return children.wait(settings.shutdown_seconds + KILL_MARGIN_SECONDS)


def deliverer(settings: Settings) -> list[Child]:
    """The process that delivers webhooks; none where it is switched off."""
    return [Child(("deliverer",))] if settings.webhook_threads else []


def _workers(settings: Settings) -> list[Child]:
    """The worker processes. Each serves its metrics at an address of its own."""
    arguments = ("worker", "--processes", "1", "--threads", str(settings.threads))
    addresses = settings.metrics_addresses
    return [
        Child(arguments, {f"{PREFIX}METRICS_ADDRESS": address for address in addresses[index : index + 1]})
        for index in range(settings.processes)
    ]


class Children:
    """Processes of ours."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._processes = [_start(child) for child in children]

    def replace_dead(self, stop: threading.Event) -> None:
        """Start those anew that have ended, until `stop` is set."""
        for index, process in enumerate(self._processes):
            if process.poll() is not None:
                kind = self._children[index].arguments[0].capitalize()
                logger.error("%s process %d ended with %d: it is replaced.", kind, process.pid, process.returncode)
                if stop.wait(RESTART_SECONDS):
                    return
                self._processes[index] = _start(self._children[index])

    def terminate(self) -> None:
        """Tell them all to drain."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Wait until all have ended, and kill those that have not. Returns 0 where every one drained, else 1."""
        deadline = time.monotonic() + seconds
        return max((_end(process, deadline) for process in self._processes), default=0)


def _start(child: Child) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # A group of its own: Ctrl-C is for the supervisor alone, which then drains the processes.
        [sys.executable, "-P", "-m", "workers.cli", *child.arguments, "--parent", str(os.getpid())],
        start_new_session=True,
        env=os.environ | child.environment,
    )


def _end(process: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        logger.error("Process %d did not drain and is killed.", process.pid)
        process.kill()
        process.wait()
        return 1
    # The signal itself ends one that has just been started: it has taken nothing yet.
    return 0 if code in (0, -signal.SIGTERM) else 1
