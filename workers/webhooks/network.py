"""The connections of webhooks: only to addresses that the guard has checked, and with one deadline per request.

httpcore2 gets new connections from its network backend, and pools them by origin (scheme, host, port). The address is
pinned here, so the URL keeps the host name for TLS, for the header `Host`, and for the pool.
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
"""How many bytes are written at a time; the deadline is checked between two writes."""


class Deadline(threading.local):
    """The deadline of the current thread's request.

    httpcore's own timeouts are for a single read or write, which a server that sends byte by byte never exceeds.
    """

    at: float = 0.0

    @contextmanager
    def within(self, seconds: float) -> Generator[None]:
        """Requests of this thread inside the block end within `seconds`, or raise a timeout of httpcore2."""
        self.at = time.monotonic() + seconds
        try:
            yield
        finally:
            self.at = 0.0

    def left(self, late: type[Exception], at_most: float | None = None) -> float:
        """The seconds that are left. Raises `late` if there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise late("the deadline has passed")
        return seconds if at_most is None else min(seconds, at_most)


class NoAddress(ConnectError):
    """The host has no address, or the name server did not answer."""


class GuardedNetwork(NetworkBackend):
    """Connects only to addresses that the guard allows. Thread-safe; `deadline` is that of the calling thread."""

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
            ForbiddenAddress: an address is not allowed. No connection was made.
            NoAddress: the host has no address.
            ConnectError, ConnectTimeout: no address answers.
        """
        try:
            addresses = self._guard.addresses(host, port, self.deadline.left(ConnectTimeout, timeout))
        except TimeoutError:
            raise ConnectTimeout("the name of the host was not found in time") from None
        except OSError:
            raise NoAddress("the host has no address") from None
        failure: ConnectError | ConnectTimeout = ConnectTimeout("no address was tried")
        for tried, address in enumerate(addresses):
            # The remaining time is divided, so that one dead address does not take all of it.
            share = self.deadline.left(ConnectTimeout, timeout) / (len(addresses) - tried)
            try:
                stream = self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self.deadline)
        raise failure


class _Stream(NetworkStream):
    """A connection that limits every step to the time that the request has left."""

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
