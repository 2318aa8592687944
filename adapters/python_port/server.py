"""The worker's side of the fork server: started at first use, and again after it has died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import IO, Any, Final

from adapters.port import MAX_QUOTE, AdapterError
from adapters.python_port.children import Child, ChildEnded, DeadlinePassed
from adapters.python_port.frames import VERSION, FrameError
from adapters.python_port.limits import Limits
from dspex import ErrorCode

MAX_PACKET: Final = 64 * 1024
END_SECONDS: Final = 5.0

_PROGRAM: Final = (
    "import json, sys; control, parent, options, *sys.path = sys.argv[1:]; "
    "from adapters.python_port.forkserver import main; main(int(control), int(parent), json.loads(options))"
)


class Server:
    """Starts children. Thread-safe, and may be shared by adapters. The process starts with the first child."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._keeper: _Keeper | None = None
        self._closed = False

    def fork(self) -> Child:
        """Start a child that is ready for requests.

        Raises:
            AdapterError: `transient`: the machine has no resources for another process. `crashed`: it did not start.
        """
        with self._lock:
            if self._closed:
                raise AdapterError(ErrorCode.TRANSIENT, "the adapter was closed")
            if self._keeper is not None and not self._keeper.alive:
                self._stop()
            if self._keeper is None:
                self._keeper = self._start()
            try:
                child = self._forked(self._keeper.control)
            except (OSError, EOFError):  # the server has just died
                self._stop()
                self._keeper = self._start()
                child = self._forked(self._keeper.control)
        try:
            child.start(time.monotonic() + self._limits.start_seconds)
        except (DeadlinePassed, ChildEnded, FrameError) as error:
            child.end()
            text = child.stderr.text(()) or str(error) or type(error).__name__
            child.close()
            raise AdapterError(ErrorCode.CRASHED, f"a child did not start: {_last_line(text)}") from None
        return child

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

    def _start(self) -> _Keeper:
        keeper = _Keeper(self._limits)
        keeper.start()
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

    def __init__(self, limits: Limits) -> None:
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
        return _last_line(self._errors.read()[-MAX_QUOTE:].decode(errors="replace"))

    def _keep(self) -> None:
        options = {
            "memory_bytes": self._limits.memory_bytes,
            "max_frame_bytes": self._limits.max_frame_bytes,
            "preload": self._limits.preload,
            "lm_proxy": self._limits.lm_proxy,
        }
        arguments = [str(self._theirs.fileno()), str(os.getpid()), json.dumps(options), *sys.path]
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[self._theirs.fileno()],
                env=self._limits.environment_of(os.environ),
                start_new_session=True,  # Ctrl-C at a terminal must reach only the worker, which lets runs end
            )
        except OSError as error:
            self._failure = error
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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_QUOTE] if lines else ""
