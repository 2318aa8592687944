"""A child, as the adapter has it: its socket, what it prints, and the means to kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from typing import Final

from adapters.lm import ResolvedLM
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
"""What the child itself left in the socket is far less: who sends more is a process that it started."""

END_SECONDS: Final = 0.02
"""How long is waited for a killed child to be gone. It runs no more from the signal on; to free its memory takes the
kernel some milliseconds, and far longer when many die at once: no run that has timed out waits for that."""


class DeadlinePassed(Exception):
    """The child did not answer in time."""


class ChildEnded(Exception):
    """The child ended, or closed its socket, in the middle of a request."""


class Child:
    """One child process. Used by one thread at a time, but for `kill`.

    Args:
        pidfd: a descriptor of the process (pidfd_open(2)): unlike the number, it never comes to mean another one.

    Attributes:
        programs: what it has built, with which LM: a program whose key has changed is to be built again.
        runs: how many it was given.
        spare_runs: how many it may be given.
        grown_bytes: by how much its resident memory has grown.
        usage: what the run has used so far.
        broken: it is not to be used again.
        idle_since: when it was given back, by the monotonic clock.
    """

    def __init__(
        self, pid: int, pidfd: int, connection: socket.socket, stdout: int, stderr: int, limits: Limits
    ) -> None:
        self.pid = pid
        self.programs: dict[str, ResolvedLM] = {}
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
            DeadlinePassed, ChildEnded, FrameError: it did not start.
        """
        if not isinstance(self.ask(encode(Hello(), self._max_bytes), deadline), Hello):
            raise FrameError("the first is not hello")

    def prepare(self) -> None:
        """Make ready for another request: forget what was printed and used before."""
        self.stdout.forget()
        self.stderr.forget()
        self.usage = Usage()

    def ask(self, request: bytes, deadline: float | None) -> ToAdapter:
        """Send a frame and wait for its answer; `usage` frames before it are taken.

        Args:
            deadline: by the monotonic clock.

        Raises:
            DeadlinePassed: there was no answer in time.
            ChildEnded: there will be none.
            FrameError: what came is no frame.
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
        """Kill it, from any thread. It is gone some milliseconds later."""
        with self._lock:
            self.broken = True
            if not self._closed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self, grace: float = 0.0) -> None:
        """Kill it, and take what it still had to tell.

        Args:
            grace: seconds that it has to end by itself.
        """
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if grace:
            poll.poll(grace * 1000)
        self.kill()
        poll.poll(END_SECONDS * 1000)
        # What it sent before it died is still in the socket.
        self._outgoing = memoryview(b"")
        self._drain()
        self.stdout.take()
        self.stderr.take()
        with contextlib.suppress(FrameError):
            while self._next() is not None:
                continue

    def close(self) -> None:
        """Kill it and free the descriptors."""
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
        """Whether the process is there."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def _next(self) -> ToAdapter | None:
        """The next frame that is complete, usage taken out."""
        while (body := self._reader.next()) is not None:
            frame = read_to_adapter(body)
            if not isinstance(frame, UsageSoFar):
                return frame
            self.usage = frame.usage
        return None

    def _wait(self, deadline: float | None) -> None:
        """Wait for anything to happen, and take it."""
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
            self._outgoing = memoryview(b"")  # reading tells the same, once what it sent before was read
        self._poll.modify(self._connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))

    def _read(self) -> bool:
        """Take what has come. Returns whether there may be more at once."""
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
        """Take all that a child sent before it ended: nothing tells of it later."""
        for _ in range(MAX_CHUNKS):
            if not self._read():
                return
