"""The worker's side of a child process: its socket, its output, and the means to kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from typing import Final

from adapters.lm import ResolvedLMs
from adapters.python_port.frames import (
    FrameError,
    FrameReader,
    Hello,
    ToAdapter,
    UsageSoFar,
    encode,
    read_to_adapter,
)
from adapters.python_port.limits import Limits
from adapters.python_port.output import Captured
from dspex import Usage

CHUNK: Final = 1 << 18
MAX_CHUNKS: Final = 1_024
"""The most reads after a child has ended. More data can come only from a process that it started.
"""

END_SECONDS: Final = 0.02
"""Seconds to wait until a killed child is gone.

It stops at the signal, but the kernel needs milliseconds to free its memory, and far longer if many die at once. A run
that has timed out must not wait for that.
"""


class DeadlinePassed(Exception):
    """The child did not answer in time."""


class ChildEnded(Exception):
    """The child ended, or closed its socket, in the middle of a request."""


class Child:
    """One child process. Not thread-safe, except for `kill`.

    Args:
        pidfd: a descriptor of the process (pidfd_open(2)). Unlike a pid, it is never reused for another process.

    Attributes:
        environment: the name of the environment that it runs in; None: the worker's own.
        programs: the programs that it has built, with their LMs. If a key has changed, the program must be built again.
        runs: how many runs it has had.
        spare_runs: how many runs it may still have.
        grown_bytes: by how much its resident memory has grown.
        usage: the usage of the current run so far.
        broken: True if it must not be used again.
        idle_since: when it was returned to the pool, by the monotonic clock.
    """

    def __init__(
        self, pid: int, pidfd: int, connection: socket.socket, stdout: int, stderr: int, limits: Limits
    ) -> None:
        self.pid = pid
        self.environment: str | None = None
        self.programs: dict[str, ResolvedLMs] = {}
        self.runs = 0
        self.spare_runs = limits.recycle_runs
        self.grown_bytes = 0
        self.usage = Usage()
        self.broken = False
        self.idle_since = 0.0
        self.stdout = Captured("stdout", stdout, limits.output_bytes)
        self.stderr = Captured("stderr", stderr, limits.output_bytes)
        self._pidfd = pidfd
        self._connection = connection
        self._max_bytes = limits.max_frame_bytes
        self._reader = FrameReader(limits.max_frame_bytes)
        self._outgoing = memoryview(b"")
        self._gone = False
        self._closed = False
        self._lock = threading.Lock()
        self._poll = select.poll()
        for descriptor in (connection.fileno(), pidfd, stdout, stderr):
            self._poll.register(descriptor, select.POLLIN)

    def start(self, deadline: float) -> None:
        """Exchange the first frames.

        Raises:
            DeadlinePassed, ChildEnded, FrameError: the child did not start.
        """
        if not isinstance(self.ask(encode(Hello(), self._max_bytes), deadline), Hello):
            raise FrameError("the first is not hello")

    def prepare(self) -> None:
        """Prepare for another request: forget the output and the usage of the last one."""
        self.stdout.forget()
        self.stderr.forget()
        self.usage = Usage()

    def ask(self, request: bytes, deadline: float | None) -> ToAdapter:
        """Send a frame and wait for the answer. Processes `usage` frames that come before it.

        Args:
            deadline: the time limit, by the monotonic clock.

        Raises:
            DeadlinePassed: there was no answer in time.
            ChildEnded: the child has ended without an answer.
            FrameError: the child sent an invalid frame.
        """
        self._outgoing = memoryview(request)
        self._write()
        while True:
            answer = self._next()
            if answer is not None:
                return answer
            if self._gone:
                raise ChildEnded
            self._wait(deadline)

    def kill(self) -> None:
        """Kill the process. Thread-safe. It is gone some milliseconds later."""
        with self._lock:
            self.broken = True
            if not self._closed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self, grace: float = 0.0) -> None:
        """Kill the process, and read what it has sent before.

        Args:
            grace: seconds in which it may end by itself.
        """
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if grace:
            poll.poll(grace * 1000)
        self.kill()
        poll.poll(END_SECONDS * 1000)
        # Data that it sent before it died is still in the socket.
        self._outgoing = memoryview(b"")
        self._drain()
        self.stdout.take()
        self.stderr.take()
        with contextlib.suppress(FrameError):
            while self._next() is not None:
                continue

    def close(self) -> None:
        """Kill the process and close the descriptors."""
        self.kill()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._connection.close()
        for descriptor in (self._pidfd, self.stdout.descriptor, self.stderr.descriptor):
            os.close(descriptor)

    @property
    def alive(self) -> bool:
        """Whether the process exists."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def _next(self) -> ToAdapter | None:
        """The next complete frame that is not `usage`, or None."""
        while (body := self._reader.next()) is not None:
            frame = read_to_adapter(body)
            if not isinstance(frame, UsageSoFar):
                return frame
            self.usage = frame.usage
        return None

    def _wait(self, deadline: float | None) -> None:
        """Wait for the next event of the socket or the pipes, and process it."""
        patience = None
        if deadline is not None:
            patience = (deadline - time.monotonic()) * 1000
            if patience <= 0:
                raise DeadlinePassed
        for descriptor, event in self._poll.poll(patience):
            if descriptor == self._connection.fileno():
                if event & select.POLLOUT:
                    self._write()
                if event & ~select.POLLOUT:
                    self._read()
            elif descriptor == self._pidfd:
                self._drain()
                self._gone = True
            else:
                stream = self.stdout if descriptor == self.stdout.descriptor else self.stderr
                if not stream.take():
                    self._poll.unregister(descriptor)

    def _write(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._connection.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._outgoing = memoryview(b"")  # `_read` will meet the same error, after the data that is left
        self._poll.modify(self._connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))

    def _read(self) -> bool:
        """Read what has come. Returns whether more may be available at once."""
        try:
            data = self._connection.recv(CHUNK)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        self._reader.feed(data)
        self._gone = self._gone or not data
        return bool(data)

    def _drain(self) -> None:
        """Read everything that a child sent before it ended, as no event will announce it."""
        for _ in range(MAX_CHUNKS):
            if not self._read():
                return
