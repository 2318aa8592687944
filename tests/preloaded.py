"""`dspex` in processes that are forked from one which has loaded its code: they begin in a fiftieth of a second.

Each is a process of its own with its own folder, environment and streams, as one that a shell starts. What only an
interpreter's start decides (variables of Python and of the locale) is not decided again.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PRELOADED: Final = (
    "tests.preloaded",
    "workers.cli.main",
    "workers.cli.run.command",
    "workers.cli.entities",
    "workers.cli.dead_letters",
    "adapters.mock",
    "sqlalchemy.dialects.sqlite",
)

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(list(PRELOADED))


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
        process = _processes.Process(target=_main, args=(list(arguments), str(folder), dict(environment), standard))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["dspex", *arguments], seconds)
        out, err = (path.read_text(encoding="utf-8") for path in standard[1:])
        return subprocess.CompletedProcess(["dspex", *arguments], process.exitcode, out, err)


def _main(arguments: list[str], folder: str, environment: dict[str, str], standard: list[Path]) -> None:
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

    from workers.cli.start import main

    main()
