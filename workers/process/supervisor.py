"""The processes of `dspex worker`: starts them, replaces those that die, and drains them all.

Worker processes run jobs. A separate process delivers webhooks, so that no receiver can slow a job.
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

from dspex.backoff import doubled
from workers.environment import PREFIX
from workers.settings import Settings

logger = logging.getLogger(__name__)

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""Seconds until a dead process is replaced. The pause doubles for each that dies soon after its start."""
SOON_SECONDS = 30.0
"""A process that dies within this time has failed to start."""
GIVE_UP = 5
"""After so many failed starts in a row of all processes, no further one is tried: see `Children.hopeless`."""
KILL_MARGIN_SECONDS = 10.0


class Child(NamedTuple):
    """How to start a process: the arguments of `dspex`, and the additions to our environment."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = {}  # noqa: RUF012


def supervise(settings: Settings, stop: threading.Event) -> int:
    """Keep `settings.processes` worker processes and a deliverer running until `stop` is set, then drain them.

    Returns:
        The exit code: 0 if every process drained; 1 if one had to be killed or could not give its claims back, or if no
            worker process stays alive. The service manager then treats it as a crash.
    """
    workers, others = Children(_workers(settings)), Children(deliverer(settings))
    while not stop.wait(0.2):
        workers.replace_dead()
        others.replace_dead()
        if workers.hopeless:
            logger.critical("No worker process lives for %.0f s: giving up. See their logs above.", SOON_SECONDS)
            others.terminate()
            others.wait(settings.shutdown_seconds + KILL_MARGIN_SECONDS)
            return 1
    workers.terminate()
    others.terminate()
    seconds = settings.shutdown_seconds + KILL_MARGIN_SECONDS
    deadline = time.monotonic() + seconds
    return max(workers.wait(seconds), others.wait(deadline - time.monotonic()))


def deliverer(settings: Settings) -> list[Child]:
    """The deliverer process; none if it is switched off."""
    return [Child(("deliverer",))] if settings.webhook_threads else []


def _workers(settings: Settings) -> list[Child]:
    """The worker processes. Each serves metrics at its own address."""
    served = [f"--{name}={','.join(some)}" for name, some in settings.served.items()]
    arguments = ("worker", "--processes", "1", "--threads", str(settings.threads), *served)
    addresses = settings.metrics_addresses
    return [
        Child(arguments, {f"{PREFIX}METRICS_ADDRESS": address for address in addresses[index : index + 1]})
        for index in range(settings.processes)
    ]


class Children:
    """Our child processes."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._places = [_Place(child) for child in children]

    def replace_dead(self) -> None:
        """Replace processes that have ended, each after its pause. Call this often; it does not block."""
        for place in self._places:
            place.replace_dead()

    @property
    def hopeless(self) -> bool:
        """Whether no process lives, and each has failed to start `GIVE_UP` times in a row."""
        return bool(self._places) and all(place.dead and place.failures >= GIVE_UP for place in self._places)

    def terminate(self) -> None:
        """Ask all processes to drain."""
        for place in self._places:
            place.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Wait until all have ended, and kill the others. Returns 0 if every one drained, else 1."""
        deadline = time.monotonic() + seconds
        return max((_end(place, deadline) for place in self._places), default=0)


class _Place:
    """One child process and its replacements.

    Attributes:
        dead: the process has ended by itself, and is not replaced yet.
        failures: how many failed to start in a row.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self.failures = 0
        self._start()

    def _start(self) -> None:
        self.process = _start(self._child)
        self.dead = False
        self._started = time.monotonic()

    def replace_dead(self) -> None:
        """Start a replacement if the process has ended and its pause is over."""
        now = time.monotonic()
        if not self.dead and self.process.poll() is not None:
            self.dead = True
            self.failures = self.failures + 1 if now - self._started < SOON_SECONDS else 1
            pause = doubled(FIRST_PAUSE, LAST_PAUSE, self.failures - 1)
            self._next_start = now + pause
            kind, process = self._child.arguments[0].capitalize(), self.process
            logger.error(
                "%s process %d ended with %d: it is replaced in %.0f s.", kind, process.pid, process.returncode, pause
            )
        if self.dead and now >= self._next_start:
            self._start()


def _start(child: Child) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # A process group of its own: Ctrl-C reaches only the supervisor, which then drains the processes.
        [sys.executable, "-P", "-m", "workers.cli", *child.arguments, "--parent", str(os.getpid())],
        start_new_session=True,
        env=os.environ | child.environment,
    )


def _end(place: _Place, deadline: float) -> int:
    process = place.process
    try:
        code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        logger.error("Process %d did not drain and is killed.", process.pid)
        process.kill()
        process.wait()
        return 1
    # An earlier death was logged; the signal itself ends a process that has just been started.
    return 0 if place.dead or code in (0, -signal.SIGTERM) else 1
