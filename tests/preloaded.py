"""`dspex` in processes that are forked from one which has loaded its code: they begin in a fiftieth of a second.

Each is a process of its own with its own folder, environment and streams, as one that a shell starts. What only an
interpreter's start decides (variables of Python and of the locale) is not decided again.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

PRELOADED: Final = (
    "tests.preloaded",
    "workers.cli.main",
    "workers.cli.run.command",
    "workers.cli.entities",
    "workers.cli.dead_letters",
    "workers.cli.worker",
    "workers.brokers.amqp",
    "adapters.mock",
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
)

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(list(PRELOADED))


class Running:
    """A `dspex` that was started: it has what is used of `subprocess.Popen`.

    Attributes:
        pid: its process id.
    """

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        process.start()
        self.pid: int = process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Its exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See `returncode`."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("dspex", seconds or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    err: Path,
    *,
    folder: Path | None = None,
    session: bool = False,
    before: str = "",
) -> Running:
    """Start `dspex`. It is killed at the latest when the tests end.

    Args:
        err: the file to which its standard error is added; standard output goes nowhere.
        folder: its working directory, by default this process's.
        session: it leads a session of its own, as under `setsid`.
        before: Python that it executes before it begins.
    """
    err.touch()
    standard = [os.devnull, os.devnull, str(err)]
    given = (list(arguments), str(folder or Path.cwd()), dict(environment), standard, session, before)
    return Running(_processes.Process(target=_main, args=given, daemon=True))


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `dspex`.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with tempfile.TemporaryDirectory() as streams:
        standard = [Path(streams, name) for name in ("stdin", "stdout", "stderr")]
        standard[0].write_text(stdin, encoding="utf-8")
        given = (list(arguments), str(folder), dict(environment), [*map(str, standard)])
        running = Running(_processes.Process(target=_main, args=given))
        try:
            code = running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            raise
        out, err = (path.read_text(encoding="utf-8") for path in standard[1:])
        return subprocess.CompletedProcess(["dspex", *arguments], code, out, err)


def _main(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    standard: list[str],
    session: bool = False,
    before: str = "",
) -> None:
    if session:
        os.setsid()
    # Where the tests run under `nohup` or in the background of a shell these are ignored, and that is inherited.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate(standard):
        descriptor = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["dspex", *arguments]
    exec(before, {})

    from workers.cli.start import main

    main()
