"""The connections of webhooks: only to addresses that the guard has checked, and within one deadline in all.

httpcore2 asks its network backend for each new connection and keeps it for the origin (scheme, host, port) it was made
for. The address is pinned here, so the URL keeps its host: for TLS, for the header `Host`, and for the pool.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

from httpcore2 import (
    SOCKET_OPTION,
    ConnectError,
    ConnectTimeout,
    NetworkBackend,
    NetworkStream,
    ReadTimeout,
    SyncBackend,
    WriteTimeout,
)

from workers.webhooks.addresses import Guard

PIECE: Final = 4096
"""Bytes handed to the system at a time: the deadline is looked at between two of them."""


class Deadline(threading.local):
    """When the request of this thread must be over.

    httpcore's own timeouts are of one read or write: a server that drips a byte at a time never exceeds them.
    """

    at: float = 0.0

    @contextmanager
    def within(self, seconds: float) -> Generator[None]:
        """What this thread does in here ends within `seconds`, or raises a timeout of httpcore2."""
        self.at = time.monotonic() + seconds
        try:
            yield
        finally:
            self.at = 0.0

    def left(self, late: type[Exception], at_most: float | None = None) -> float:
        """Seconds that are left; raises `late` where there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise late("the deadline has passed")
        return seconds if at_most is None else min(seconds, at_most)


class NoAddress(ConnectError):
    """The host has no address, or the name server does not say."""


class GuardedNetwork(NetworkBackend):
    """Connects to what the guard allows. Thread-safe; `deadline` is of the calling thread."""

    def __init__(self, guard: Guard, network: NetworkBackend | None = None) -> None:
        self._guard = guard
        self._network = network or SyncBackend()
        self.deadline = Deadline()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        """Connect to the first address that answers.

        Raises:
            ForbiddenAddress: nothing was connected to.
            NoAddress: the host has none.
            ConnectError, ConnectTimeout: none answers.
        """
        try:
            addresses = self._guard.addresses(host, port, self.deadline.left(ConnectTimeout, timeout))
        except TimeoutError:
            raise ConnectTimeout("the name of the host was not found in time") from None
        except OSError:
            raise NoAddress("the host has no address") from None
        failure: ConnectError | ConnectTimeout = ConnectTimeout("no address was tried")
        for tried, address in enumerate(addresses):
            # What is left is shared, so that one dead address does not take it all.
            share = self.deadline.left(ConnectTimeout, timeout) / (len(addresses) - tried)
            try:
                stream = self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self.deadline)
        raise failure


class _Stream(NetworkStream):
    """A connection whose every step takes no longer than what is left of the request's time."""

    def __init__(self, stream: NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE):
            self._stream.write(buffer[start : start + PIECE], self._deadline.left(WriteTimeout, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        seconds = self._deadline.left(ConnectTimeout, timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
