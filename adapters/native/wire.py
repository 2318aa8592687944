"""The connections to LMs: one pool for all programs of an adapter, which notes what each call was answered with.

DSPy's own HTTP client keeps a pool for each LM and each length of its timeouts, of 100 connections at most. Here there
is one, as large as there are threads: each has one call at a time, so none waits for another's connection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from adapters.native.insides import CONNECT_SECONDS, StdlibTransport

UNBOUNDED: Final = 1 << 20
"""Connections at most: more than there are threads. What bounds them is that a thread makes one call at a time."""

KEPT_OF_STREAM: Final = 256 * 1024
"""Bytes of a streamed answer that are kept, to look for an error in."""


@dataclass
class Call:
    """One LM call: how long it may wait, and what it was answered with.

    Attributes:
        seconds: to wait for the connection, and for each part of the answer; None for the client's own.
        status, headers, body: of the answer, where there was one.
        again: the same answer with another body, to be read in place of what would be sent for.
    """

    seconds: float | None = None
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    again: bytes | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the answer said so by its status."""
        return self.status is not None and 200 <= self.status < 300


_CALL: ContextVar[Call | None] = ContextVar("lm_call", default=None)


@contextmanager
def noted(call: Call) -> Generator[None]:
    """While this lasts, what is sent in this context is sent for this call."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class Wire:
    """A transport of DSPy's HTTP client (`lm15.SyncTransport`); threads share it.

    Args:
        proxy: `http://host:port`, by which every LM is called.
    """

    def __init__(self, proxy: str | None = None) -> None:
        self.proxy = proxy
        # It follows no redirect; and without trust_env no proxy of the environment decides who sees the keys.
        self._pool = StdlibTransport(max_connections=UNBOUNDED, trust_env=False, proxy=proxy)

    def stream(self, request: Any) -> Any:
        """Send a request; the answer is read from what is returned, in its context."""
        call = _CALL.get()
        if call is None:
            return self._pool.stream(request)
        if call.again is not None:
            return _Noted(_Kept(call), call)
        if call.seconds is not None:
            request.read_timeout = request.write_timeout = call.seconds
            request.connect_timeout = min(call.seconds, CONNECT_SECONDS)
        return _Noted(self._pool.stream(request), call)

    def close(self) -> None:
        """End every connection, also those in use."""
        self._pool.close()


class _Kept:
    """The answer that a call has had already."""

    reason, http_version = "OK", "HTTP/1.1"

    def __init__(self, call: Call) -> None:
        self.status = call.status
        self.headers = call.headers
        self._body = call.again or b""

    def read(self) -> bytes:
        """The whole body."""
        return self._body

    def iter_lines(self) -> Iterator[bytes]:
        """The body, line by line."""
        return iter(self._body.splitlines(keepends=True))

    def close(self) -> None:
        """Nothing is held."""


class _Noted:
    """The answer to a request, that notes for its call what is read of it."""

    def __init__(self, response: Any, call: Call) -> None:
        self._response = response
        self._call = call
        self.status: int = response.status
        self.reason: str = response.reason
        self.http_version: str = response.http_version
        self.headers: list[tuple[str, str]] = response.headers
        call.status, call.headers, call.body = response.status, response.headers, b""

    def read(self) -> bytes:
        """The whole body."""
        self._call.body = self._response.read()
        return self._call.body

    def iter_lines(self) -> Iterator[bytes]:
        """The body, line by line."""
        kept = bytearray()
        for line in self._response.iter_lines():
            if len(kept) < KEPT_OF_STREAM:
                kept += line
                self._call.body = bytes(kept)
            yield line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()
