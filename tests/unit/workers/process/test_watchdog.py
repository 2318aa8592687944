"""Threads that have died are named; what was not started, or lives, is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from workers.process.watchdog import EXIT_CODE, dead


@pytest.fixture
def end() -> Iterator[threading.Event]:
    end = threading.Event()
    yield end
    end.set()


def test_the_dead_are_named(end: threading.Event) -> None:
    living = threading.Thread(target=end.wait, args=(30,), name="living", daemon=True)
    done = threading.Thread(target=bool, name="done")
    not_started = threading.Thread(target=bool, name="not-started")
    threads = [not_started, living, done]
    assert dead(threads) == []
    living.start()
    done.start()
    done.join()
    assert dead(threads) == ["done"]
    end.set()
    living.join()
    assert dead(threads) == ["living", "done"]


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """A process that calls `end_process`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    prelude = (
        "import logging, threading, time\nfrom workers.process.watchdog import end_process\nlogging.basicConfig()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_process_drains_and_ends() -> None:
    done = ended("end_process(lambda: print('drained', flush=True), 30)")
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_CODE, "drained\n", "")


def test_a_drain_that_fails_is_no_reason_to_stay() -> None:
    done = ended("end_process(lambda: 1 / 0, 30)")
    assert done.returncode == EXIT_CODE
    assert "ZeroDivisionError" in done.stderr


def test_what_hangs_is_not_waited_for() -> None:
    done = ended(
        "threading.Thread(target=threading.Event().wait).start()  # not a daemon: the interpreter would wait for it\n"
        "end_process(threading.Event().wait, 0.1)"
    )
    assert done.returncode == EXIT_CODE
    assert "did not drain in" in done.stderr
