"""The entry point of `dspex`: handles signals before slow imports."""

from __future__ import annotations

import io
import signal
import sys

from workers.telemetry.uncaught import log_uncaught

LONG_RUNNING = frozenset({"worker", "deliverer"})


def main() -> None:
    """Run `dspex`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not support every character
    if sys.argv[1:2] and sys.argv[1] in LONG_RUNNING:
        _end_early()
    log_uncaught()
    _require_versions()
    from workers.cli.main import main as commands

    commands()


def _require_versions() -> None:
    """Exit if a package is out of its tested range, as it might fail in the middle of a job."""
    from adapters.versions import at_start

    wrong = at_start()
    for line in wrong:
        print(f"dspex: {line}", file=sys.stderr)
    if wrong:
        sys.exit(2)


def _end_early() -> None:
    """Make SIGTERM and SIGHUP end the process until its start is over; then it drains (`worker.stop_on_signals`).

    The first process of a container has no default actions: a signal without a handler is lost
    (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html).
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)
