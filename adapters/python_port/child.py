"""A child process: runs programs with the native adapter, one at a time, until its socket is closed."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from adapters.lm import LMCatalog, ResolvedLMs
from adapters.native import NativeAdapter
from adapters.port import AdapterError, ProgramNotLoaded
from adapters.python_port.frames import (
    Create,
    Created,
    Ended,
    Failed,
    FrameError,
    FrameReader,
    Hello,
    NotLoaded,
    Run,
    Shown,
    ShowPrompt,
    ToAdapter,
    ToChild,
    UsageSoFar,
    encode,
    read_to_child,
)
from adapters.python_port.linux import resident_bytes
from dspex import Configuration, ErrorCode, Usage

CAPACITY: Final = 32
"""How many programs a child keeps."""


class SentLMs(LMCatalog):
    """Returns the LMs that the adapter has resolved, as a child has no aliases and no secrets."""

    def __init__(self, proxy: str | None) -> None:
        super().__init__(proxy=proxy)
        self.__dict__["sent"] = {}

    def put(self, resolved: ResolvedLMs) -> None:
        """Set the LMs of the program that is built next."""
        self.__dict__["sent"] = resolved

    def resolve_all(self, configuration: Configuration, tenant: str | None = None) -> ResolvedLMs:  # noqa: ARG002
        """See `LMCatalog.resolve_all`."""
        resolved: ResolvedLMs = self.__dict__["sent"]
        return resolved


@dataclass(frozen=True)
class Channel:
    """The socket of the child. Any thread may send frames."""

    connection: socket.socket
    max_bytes: int
    lock: threading.Lock

    def send(self, frame: ToAdapter) -> None:
        """Send a frame.

        Raises:
            FrameError: the frame is too large.
        """
        payload = encode(frame, self.max_bytes)
        with self.lock:
            self.connection.sendall(payload)

    def frames(self) -> Iterator[ToChild]:
        """Yield frames from the adapter until it closes the socket."""
        reader = FrameReader(self.max_bytes)
        while data := self.connection.recv(1 << 18):
            reader.feed(data)
            while (body := reader.next()) is not None:
                yield read_to_child(body)


class Child:
    """Answers the adapter's frames.

    Args:
        memory_bytes: the memory limit, for the text of an error.
        lm_proxy: the proxy for LM calls.
    """

    def __init__(self, channel: Channel, memory_bytes: int, lm_proxy: str | None) -> None:
        self._channel = channel
        self._memory_bytes = memory_bytes
        self._lms = SentLMs(lm_proxy)
        self._native = NativeAdapter(self._lms, CAPACITY, on_usage=self._tell)
        self._start_bytes = resident_bytes()
        self._usage = Usage()

    def serve(self) -> None:
        """Answer until the adapter closes the socket."""
        self._channel.send(Hello())
        for frame in self._channel.frames():
            match frame:
                case Hello():
                    continue
                case Create() | Run() | ShowPrompt():
                    self._usage = Usage()
                    reply = self._answer(frame)
            _flush()
            self._send(reply)

    def _answer(self, frame: Create | Run | ShowPrompt) -> ToAdapter:
        try:
            if isinstance(frame, Create):
                self._lms.put(frame.resolved)
                return Created(backend_id=self._native.create_program(frame.spec))
            if isinstance(frame, ShowPrompt):
                prompt = self._native.first_prompt(frame.backend_id, frame.inputs)
                return Shown(model=prompt.model, messages=prompt.messages)
            outcome = self._native.execute_program(frame.backend_id, frame.inputs, frame.options)
            return Ended.of(outcome, self._grown)
        except ProgramNotLoaded:
            return NotLoaded()
        except AdapterError as error:
            return Failed.of(self._out_of_memory() if _lacked_memory(error) else error, self._grown)
        except MemoryError:
            return Failed.of(self._out_of_memory(), self._grown)

    def _tell(self, run_id: str, usage: Usage) -> None:  # noqa: ARG002
        self._usage = usage
        self._channel.send(UsageSoFar(usage=usage))

    def _send(self, reply: ToAdapter) -> None:
        try:
            self._channel.send(reply)
        except FrameError as error:
            code = ErrorCode.INVALID_OUTPUT if isinstance(reply, Ended) else ErrorCode.INTERNAL
            usage = reply.usage if isinstance(reply, Ended | Failed) else Usage()
            message = f"the result of the run cannot be sent: {error}"
            self._channel.send(Failed(code=code, message=message, usage=usage, grown_bytes=self._grown))

    def _out_of_memory(self) -> AdapterError:
        text = f"the run needed more memory than the {self._memory_bytes} bytes it may have"
        return AdapterError(ErrorCode.CRASHED, text, usage=self._usage)

    @property
    def _grown(self) -> int:
        return max(0, resident_bytes() - self._start_bytes)


def _lacked_memory(error: BaseException | None) -> bool:
    """Whether an error was caused by a lack of memory, which the native adapter treats like any other error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _flush() -> None:
    """Write printed text to the pipes before the adapter learns that the run has ended."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the program may have closed them
            continue


def main(connection: socket.socket, memory_bytes: int, max_frame_bytes: int, lm_proxy: str | None) -> int:
    """Serve the adapter at the other end of the socket. Returns the exit code."""
    channel = Channel(connection, max_frame_bytes, threading.Lock())
    try:
        Child(channel, memory_bytes, lm_proxy).serve()
    except (FrameError, ConnectionError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return os.EX_PROTOCOL
    return 0
