"""`dspex worker` with more than one process: starts them, replaces those that die, and drains them all."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

from workers.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""A process that dies is replaced after this pause; one that keeps dying does not keep a core busy."""
KILL_MARGIN_SECONDS = 10.0


def supervise(settings: Settings, stop: threading.Event) -> int:
    """Keep `settings.processes` worker processes running until `stop` is set, then drain them.

    Returns:
        The exit code: 0 where every process drained, 1 where one had to be killed.
    """
    processes = [_start(settings, index) for index in range(settings.processes)]
    while not stop.wait(0.2):
        for index, process in enumerate(processes):
            if process.poll() is not None:
                logger.error("Worker process %d ended with %d: it is replaced.", process.pid, process.returncode)
                if stop.wait(RESTART_SECONDS):
                    break
                processes[index] = _start(settings, index)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + settings.shutdown_seconds + KILL_MARGIN_SECONDS
    return max(_end(process, deadline) for process in processes)


def _start(settings: Settings, index: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", "-m", "workers.cli", "worker", "--processes", "1"]
    own = {f"{PREFIX}METRICS_ADDRESS": address for address in settings.metrics_addresses[index : index + 1]}
    return subprocess.Popen(
        # A group of its own: Ctrl-C is for the supervisor alone, which then drains the processes.
        [*arguments, "--threads", str(settings.threads), "--parent", str(os.getpid())],
        start_new_session=True,
        env=os.environ | own,
    )


def _end(process: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        return min(1, abs(process.wait(timeout=max(0.0, deadline - time.monotonic()))))
    except subprocess.TimeoutExpired:
        logger.error("Worker process %d did not drain and is killed.", process.pid)
        process.kill()
        process.wait()
        return 1
