"""Runs servers as child processes: starts, stops and kills them, and finds them again by process id.

Linux only. A process is identified by its id and its start time from /proc, so that a recorded id that the kernel has
reused is never signalled.
"""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

PORTS = range(20_000, 30_000)
"""Below the kernel's ports for outgoing connections, so that the port of a killed server stays free."""

# The parent-death signal is sent when the *thread* that started the child ends, so one thread starts all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-servers")


class ServerError(RuntimeError):
    """A local server did not start or stop; the message says what to do and shows the end of its log."""


class ServerMissing(ServerError):
    """The machine has no such server; the message names the Debian package to install."""


def free_port() -> int:
    """A loopback TCP port nobody listens on. Raises ServerError after 100 attempts."""
    for _ in range(100):
        port = random.choice(PORTS)  # noqa: S311 (not a secret)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerError(f"no free port between {PORTS.start} and {PORTS.stop}; end what listens there")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Check `condition` every 20 ms until it holds. Returns False if it does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it has ended (a zombie has ended)."""
    try:
        # The name, in parentheses, may contain anything; the fields after it are plain.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass
class Process:
    """A server process: one we started (`child` is set) or one found again in a record."""

    pid: int
    started: int
    stop_signal: int
    child: "subprocess.Popen[bytes] | None" = None

    def alive(self) -> bool:
        """Whether it runs. Reaps it if it is our child and has ended."""
        if self.child is not None:
            return self.child.poll() is None
        return start_time(self.pid) == self.started

    def send(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def family(self) -> "list[Process]":
        """The process and all living descendants, with their start times, parents first."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                    parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))

        def below(pid: int) -> Iterator[int]:
            for child in parents.get(pid, []):
                yield child
                yield from below(child)

        found: list[Process] = []
        if self.alive():
            found.append(self)
            for pid in below(self.pid):
                started = start_time(pid)
                if started is not None:
                    found.append(Process(pid, started, signal.SIGKILL))
        return found


class LocalServer(ABC):
    """One server with its own directory. Subclasses know how to prepare, launch and probe it.

    The directory contains the data, the log, the ports (which a server keeps) and the ids of running processes. With
    `outlive_parent` the server survives this process; otherwise it dies with it. Use it as a context manager, or call
    `start` and `stop`; any method may be called again.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]] = ("server",)
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = 30.0

    def __init__(self, directory: Path, port: int | None = None, *, outlive_parent: bool = False) -> None:
        self.directory = directory.resolve()
        self.outlive_parent = outlive_parent
        self.processes: list[Process] = []
        self._wanted_port = port

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients."""

    @abstractmethod
    def prepare(self) -> None:
        """Create the data directory and the configuration if they are missing."""

    @abstractmethod
    def launch(self) -> None:
        """Start the processes, with `spawn`."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers clients. Polled at the start; must not block for more than a second."""

    @cached_property
    def ports(self) -> dict[str, int]:
        """The port for each name in `port_names`; chosen at first use and stored in the directory."""
        record = self.directory / "ports.json"
        ports: dict[str, int] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        if self._wanted_port is not None:
            ports["server"] = self._wanted_port
        for name in self.port_names:
            ports.setdefault(name, free_port())
        self.directory.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(ports), encoding="utf-8")
        return ports

    @property
    def port(self) -> int:
        """The port for clients, on 127.0.0.1."""
        return self.ports["server"]

    @property
    def log(self) -> Path:
        """The log file of the server."""
        return self.directory / "server.log"

    @property
    def running(self) -> bool:
        """Whether every process of the server lives."""
        return bool(self.processes) and all(process.alive() for process in self.processes)

    def start(self) -> None:
        """Start the server, and wait until it answers. Raises ServerMissing or ServerError."""
        if self.running:
            return
        self.kill()
        for port in self.ports.values():
            self._check_free(port)
        self.prepare()
        self.launch()
        atexit.register(self._end_with_parent)
        deadline = time.monotonic() + self.start_seconds
        while not (self.ready() and self.running):
            ended = not self.running
            if ended or time.monotonic() > deadline:
                self.kill()
                raise self.failure("ended while it started" if ended else "not ready in time")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask the server to shut down, and wait. Processes that have not ended after `stop_seconds` are killed."""
        for process in reversed(self.processes):
            family = process.family()
            process.send(process.stop_signal)
            wait_until(lambda ending=process: not ending.alive(), self.stop_seconds)  # type: ignore[misc]
            self._kill_all(family)
        self._forget()

    def kill(self) -> None:
        """SIGKILL all processes, like a crash. Returns when all have ended; the data stays."""
        self._kill_all([member for process in self.processes for member in process.family()])
        self._forget()

    def restart(self) -> None:
        """Stop if it runs, then start on the same port with the same data."""
        self.stop()
        self.start()

    def adopt(self) -> Self:
        """Find the processes that an earlier run of this program has recorded in the directory."""
        record = self.directory / "processes.json"
        if record.exists():
            found = [Process(**fields) for fields in json.loads(record.read_text(encoding="utf-8"))]
            self.processes = [process for process in found if process.alive()]
        return self

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        stop_signal: int = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """Start one process of the server, with its output in the log. `stop_signal` asks it to end."""
        words = [str(word) for word in command]
        setpriv = shutil.which("setpriv")
        if setpriv and not self.outlive_parent:
            words = [setpriv, "--pdeathsig", "KILL", "--", *words]
        with self.log.open("ab") as log:
            child = _starter.submit(
                subprocess.Popen,
                words,
                cwd=self.directory,
                env=self.environment() | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            ).result()
        self.processes.append(Process(child.pid, start_time(child.pid) or 0, stop_signal, child))
        fields = ("pid", "started", "stop_signal")
        records = [{name: getattr(process, name) for name in fields} for process in self.processes]
        (self.directory / "processes.json").write_text(json.dumps(records), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """The environment of every process of the server: of the caller's, only the search path."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": str(self.directory)}

    def answer(self, question: bytes, port: int | None = None) -> bytes:
        """The first bytes that the server sends after `question`; empty if it does not answer within a second."""
        try:
            with socket.create_connection(("127.0.0.1", port or self.port), timeout=1) as connection:
                connection.sendall(question)
                return connection.recv(64)
        except OSError:
            return b""

    def failure(self, what: str) -> ServerError:
        """A ServerError with the last 30 lines of the log."""
        log = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        tail = "\n".join(f"  | {line}" for line in log.splitlines()[-30:]) or "  | (empty)"
        advice = f"Read {self.log}, remove {self.directory} to start afresh"
        return ServerError(f"{self.name}: {what}. {advice}:\n{tail}")

    def _check_free(self, port: int) -> None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                record = self.directory / "ports.json"
                raise ServerError(f"{self.name}: port {port} is taken; end what listens there or edit {record}")

    def _kill_all(self, family: list[Process]) -> None:
        for process in family:
            process.send(signal.SIGKILL)
        if not wait_until(lambda: not any(process.alive() for process in family), 15):
            raise self.failure(f"processes {[one.pid for one in family if one.alive()]} survive SIGKILL")

    def _forget(self) -> None:
        self.processes.clear()
        (self.directory / "processes.json").unlink(missing_ok=True)

    def _end_with_parent(self) -> None:
        if not self.outlive_parent:
            self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
