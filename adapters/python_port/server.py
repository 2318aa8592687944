"""The worker's side of the fork server: started at first use, and again after it has died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import IO, Any, Final, TypeVar

from adapters.port import MAX_QUOTE, AdapterError, ModuleCode
from adapters.python_port.children import Child, ChildEnded, DeadlinePassed
from adapters.python_port.environments import Environment, command_of, last_line, reason
from adapters.python_port.frames import VERSION, Failed, FrameError
from adapters.python_port.limits import Limits
from dspex import ErrorCode

MAX_PACKET: Final = 64 * 1024
END_SECONDS: Final = 5.0

Answer = TypeVar("Answer")


class Server:
    """Starts children. Thread-safe, and may be shared by adapters. The process starts with the first child.

    Args:
        environment: whose Python the children run on; by default the worker's own.
    """

    def __init__(self, limits: Limits, environment: Environment | None = None) -> None:
        self._limits = limits
        self._environment = environment
        self._lock = threading.Lock()
        self._keeper: _Keeper | None = None
        self._closed = False

    def fork(self) -> Child:
        """Start a child that is ready for requests.

        Raises:
            NotHere: the environment is broken.
            AdapterError: `transient`: the machine has no resources for another process. `crashed`: it did not start.
        """
        with self._lock:
            child = self._asked(self._forked)
        try:
            child.start(time.monotonic() + self._limits.start_seconds)
        except (DeadlinePassed, ChildEnded, FrameError) as error:
            child.end()
            text = child.stderr.text(()) or str(error) or type(error).__name__
            child.close()
            raise AdapterError(ErrorCode.CRASHED, f"a child did not start: {last_line(text)}") from None
        return child

    def find_module(self, name: str, allowed: Collection[str]) -> ModuleCode | None:
        """See `OwnModules.find`: the code that a name has in this Python, of which nothing is imported.

        Args:
            allowed: the names that the operator allows beside the entry points.

        Raises:
            NotHere: there is no such module, or the environment is broken.
            AdapterError: `permanent`: there are several, or it is too large.
        """
        asked = {"type": "module", "name": name, "allowed": list(allowed)}

        def ask(control: socket.socket) -> dict[str, Any]:
            _send(control, asked)
            return _receive(control)[0]

        with self._lock:
            packet = self._asked(ask)
        if packet["type"] == "refused":
            raise Failed.model_validate(packet["error"]).error
        return None if packet["code"] is None else ModuleCode.model_validate(packet["code"])

    def status(self, pid: int) -> int | None:
        """How an ended child has exited: its exit code, or the negative number of the signal; None if not known."""
        with self._lock:
            if self._keeper is None:
                return None
            try:
                _send(self._keeper.control, {"type": "status", "pid": pid})
                packet, _ = _receive(self._keeper.control)
            except (OSError, EOFError):
                return None
        status: int | None = packet.get("status")
        return status

    @property
    def pid(self) -> int | None:
        """The pid of the process; None if it does not run."""
        keeper = self._keeper
        return None if keeper is None or not keeper.alive else keeper.pid

    def close(self) -> None:
        """End the server and every child, and start no more."""
        with self._lock:
            self._closed = True
            self._stop()

    def _asked(self, ask: Callable[[socket.socket], Answer]) -> Answer:
        """What the process answers, which is started if it does not run, and once more if it has just died."""
        if self._closed:
            raise AdapterError(ErrorCode.TRANSIENT, "the adapter was closed")
        if self._keeper is not None and not self._keeper.alive:
            self._stop()
        if self._keeper is None:
            self._keeper = self._start()
        try:
            return ask(self._keeper.control)
        except (OSError, EOFError):
            self._stop()
            self._keeper = self._start()
            return ask(self._keeper.control)

    def _start(self) -> _Keeper:
        keeper = _Keeper(self._limits, self._environment)
        try:
            keeper.start()
        except AdapterError as error:
            if self._environment is None:
                raise
            raise self._environment.broken(error.message) from None
        return keeper

    def _stop(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None

    def _forked(self, control: socket.socket) -> Child:
        """Fork a child that gets one end of a socket and of two pipes, and keep the other ends."""
        with ExitStack() as theirs, ExitStack() as ours:
            try:
                connection, other = socket.socketpair()
                ours.callback(connection.close)
                theirs.callback(other.close)
                pipes = [self._pipe(ours, theirs) for _ in ("stdout", "stderr")]
            except OSError as error:  # too many open files
                raise _no_room(str(error)) from None
            connection.setblocking(False)
            _send(control, {"type": "fork"}, other.fileno(), *(writing for _, writing in pipes))
            packet, descriptors = _receive(control)
            if packet["type"] == "error":
                raise _no_room(packet["message"])
            if not descriptors:
                raise _no_room("no descriptor is left for it")  # the child ends because its socket is closed
            ours.pop_all()
        (stdout, _), (stderr, _) = pipes
        return Child(packet["pid"], descriptors[0], connection, stdout, stderr, self._limits)

    @staticmethod
    def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
        reading, writing = os.pipe()
        ours.callback(os.close, reading)
        theirs.callback(os.close, writing)
        os.set_blocking(reading, False)
        return reading, writing


def _no_room(reason: str) -> AdapterError:
    return AdapterError(ErrorCode.TRANSIENT, f"no child could be started: {reason}")


class _Keeper:
    """One server process, and the thread that started it.

    The kernel kills the process when that thread ends (PR_SET_PDEATHSIG refers to the thread). So it is a thread of its
    own, which lives as long as the process.
    """

    def __init__(self, limits: Limits, environment: Environment | None) -> None:
        self._environment = environment
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid: int | None = None
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self._started = threading.Event()
        self._stopped = threading.Event()
        self._errors: IO[bytes] = os.fdopen(os.memfd_create("stderr"), "w+b")
        self._thread = threading.Thread(target=self._keep, name="python-port", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, and wait until it has loaded its modules.

        Raises:
            AdapterError: `crashed`: the process did not start.
        """
        self._thread.start()
        self._started.wait()
        try:
            if self._failure is not None:
                raise self._failure
            self.control.settimeout(self._limits.start_seconds)
            packet, _ = _receive(self.control)
            if packet != {"type": "hello", "version": VERSION}:
                raise EOFError("it is of another version: restart the worker")
        except (OSError, EOFError) as error:
            told = self._told()
            self.stop()
            text = f"the server of the children did not start: {told or error}"
            raise AdapterError(ErrorCode.CRASHED, text) from None

    def stop(self) -> None:
        """End the process and its children, and wait for it."""
        self.control.close()
        self._stopped.set()
        self._thread.join()
        self._errors.close()

    def _told(self) -> str:
        """The last line of the process's stderr."""
        self._errors.seek(0)
        return last_line(self._errors.read()[-4 * MAX_QUOTE :].decode(errors="replace"))

    def _keep(self) -> None:
        options = {
            "memory_bytes": self._limits.memory_bytes,
            "max_frame_bytes": self._limits.max_frame_bytes,
            "preload": self._limits.preload,
            "lm_proxy": self._limits.lm_proxy,
        }
        arguments = [str(self._theirs.fileno()), str(os.getpid()), json.dumps(options)]
        try:
            process = subprocess.Popen(
                [*command_of(self._environment), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[self._theirs.fileno()],
                env=self._limits.environment_of(os.environ),
                start_new_session=True,  # Ctrl-C at a terminal must reach only the worker, which lets runs end
            )
        except OSError as error:
            self._failure = OSError(reason(error))
            return
        else:
            self._process, self.pid = process, process.pid
        finally:
            self._theirs.close()
            self._started.set()
        self._stopped.wait()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _send(control: socket.socket, packet: Any, *descriptors: int) -> None:
    socket.send_fds(control, [json.dumps(packet).encode()], list(descriptors))


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors, _, _ = socket.recv_fds(control, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError("it has ended")
    return json.loads(data), descriptors
