"""The connections to LMs: one pool for all programs of an adapter, which records the response to each call.

DSPy's own HTTP client keeps a pool of at most 100 connections for each LM and each timeout. Here one pool serves all
threads without a limit. As a thread makes one call at a time, none waits for another's connection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from adapters.native.by_version import CONNECT_SECONDS, Transport

UNBOUNDED: Final = 1 << 20
"""The most connections: more than there are threads. A thread makes one call at a time, which bounds them."""

KEPT_OF_STREAM: Final = 256 * 1024
"""How many bytes of a streamed response are kept, to find an error in them."""


@dataclass
class Call:
    """One LM call: its timeout and its response.

    Attributes:
        seconds: the timeout for the connection, and for each part of the response; None for the client's default.
        status, headers, body: of the response, if there was one.
        again: another body for the same response. If set, it is parsed instead of sending the request.
        number: which one of its run it is, from 0.
        answer: the place of its usage in the record of the run, once it was answered.
        response: DSPy's object for the response.
    """

    seconds: float | None = None
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    again: bytes | None = None
    number: int = 0
    answer: int | None = None
    response: Any = None

    @property
    def succeeded(self) -> bool:
        """Whether the response has a successful status."""
        return self.status is not None and 200 <= self.status < 300


_CALL: ContextVar[Call | None] = ContextVar("lm_call", default=None)


@contextmanager
def noted(call: Call) -> Generator[None]:
    """Inside the block, requests sent in this context belong to this call."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


def current() -> Call | None:
    """The call that this context makes."""
    return _CALL.get()


class Wire:
    """A transport of DSPy's HTTP client (`lm15.SyncTransport`); threads share it.

    Args:
        proxy: `http://host:port`, the proxy for all LM calls.
    """

    def __init__(self, proxy: str | None = None) -> None:
        self.proxy = proxy
        # It follows no redirect. Without trust_env, no proxy of the environment sees the keys.
        self._pool = Transport(max_connections=UNBOUNDED, trust_env=False, proxy=proxy)

    def stream(self, request: Any) -> Any:
        """Send a request. Returns the response, a context manager."""
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
        """Close every connection, including those in use."""
        self._pool.close()


class _Kept:
    """The response that a call got before, with another body."""

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
        """Does nothing: there is no connection."""


class _Noted:
    """The response to a request. Records what is read of it in its call."""

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
