"""The processes of a run: workers, and a producer that takes commands. All end with the context."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.failures import Void
from deploy.processes import Process, start_time, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 20.0


def environment(extra: Mapping[str, str], tree: Path = ROOT) -> dict[str, str]:
    """Our environment, without settings of DSPex from outside of the run.

    Args:
        tree: the checkout whose code the process runs; it has to begin there, too.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    # The commands of the peers are beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return {**inherited, "PATH": path, "PYTHONPATH": f"{tree / 'messages'}{os.pathsep}{tree}"} | dict(extra)


def _words(command: Sequence[str]) -> list[str]:
    # They die with the benchmark if that is killed.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else [*command]


class Workers:
    """The worker processes of one system."""

    def __init__(self, roots: Sequence[Process], log: Path) -> None:
        self.log = log
        self._roots = roots

    @property
    def pids(self) -> list[int]:
        """The processes that were started; their children are below them."""
        return [root.pid for root in self._roots]

    def kill(self) -> None:
        """Kill them and their children, and wait until they are gone."""
        families = [member for root in self._roots for member in root.family()]
        for member in families:
            member.send(signal.SIGKILL)
        wait_until(lambda: not any(member.alive() for member in families), STOP_SECONDS)

    def check(self) -> None:
        """Raises Void if one has ended."""
        if not all(root.alive() for root in self._roots):
            raise Void(f"a worker has ended: {self.tail()}")

    def tail(self) -> str:
        """The last lines of their output."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:]) or "(nothing was said)"


@contextmanager
def workers(
    commands: Sequence[Sequence[str]], extra: Mapping[str, str], log: Path, tree: Path = ROOT
) -> Generator[Workers]:
    """Start workers from a checkout. At the end they are asked to stop, and then killed."""
    roots: list[Process] = []
    try:
        with log.open("ab") as output:
            for command in commands:
                child = subprocess.Popen(
                    _words(command),
                    cwd=tree,
                    env=environment(extra, tree),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is ours
                )
                roots.append(Process(child.pid, start_time(child.pid) or 0, signal.SIGTERM, child))
        yield Workers(roots, log)
    finally:
        families = [member for root in roots for member in root.family()]
        for root in roots:
            root.send(root.stop_signal)
        wait_until(lambda: not any(member.alive() for member in families), STOP_SECONDS)
        for member in families:
            member.send(signal.SIGKILL)
        wait_until(lambda: not any(member.alive() for member in families), STOP_SECONDS)


class Producer:
    """A process that carries out one command at a time: prepare, publish, ask (`benchmarks.peers.__main__`)."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, deadline: float) -> None:
        self._process = process
        self._log = log
        self._deadline = deadline
        self._answer()

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a command, and wait for it.

        Raises:
            Void: the command failed or took too long.
        """
        self.begin(what, **arguments)
        return self._answer()

    def begin(self, what: str, **arguments: Any) -> None:
        """Start a command; `end` waits for it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for the answer to the command that was started."""
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        patience = max(0.0, self._deadline - time.monotonic())
        if not select.select([self._process.stdout], [], [], patience)[0]:
            raise Void("the producer took too long")
        line = self._process.stdout.readline()
        if not line:
            lines = self._log.read_text(errors="replace").splitlines()
            raise Void("the producer has ended: " + "\n".join(lines[-8:]))
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def producer(peer: str, extra: Mapping[str, str], log: Path, deadline: float, tree: Path = ROOT) -> Generator[Producer]:
    """Start the process of a producer from a checkout; it ends with the context."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            _words([sys.executable, "-m", "benchmarks.peers", peer]),
            cwd=tree,
            env=environment(extra, tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Producer(process, log, deadline)
    finally:
        process.kill()
        process.communicate()
