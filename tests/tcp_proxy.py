"""A TCP proxy on loopback: a network that a test can slow down, silence, cut or close, while both ends live."""

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing the socket sends a reset."""


class TcpProxy:
    """Listens on a port of its own and forwards to the server of `url`. Use as a context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._traps: list[_Trap] = []
        self.url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self._port}").geturl()
        """The URL with the proxy in place of the server."""
        self.accepted = 0
        """Connections so far."""
        self.latency = 0.0
        """Seconds that each piece of data is held up, in either direction."""

    @property
    def open(self) -> int:
        """Connections that are open now, on either side."""
        with self._lock:
            return sum(pair.client.fileno() != -1 or pair.server.fileno() != -1 for pair in self._pairs)

    def cut(self) -> None:
        """End every connection, as when both ends were closed; new ones are taken."""
        for pair in self._take():
            pair.end()

    def reset(self) -> None:
        """Reset every connection (RST): what was under way is gone; new ones are taken."""
        for pair in self._take():
            pair.end(reset=True)

    def hold(self) -> None:
        """A black hole: forward nothing more until `release`. The connections stay open and silent, new ones too."""
        self._flowing.clear()

    def release(self) -> None:
        """Forward again, what was held up too."""
        self._flowing.set()

    def refuse(self) -> None:
        """Refuse new connections until `accept`; those that are open stay so."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def accept(self) -> None:
        """Take connections again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._serve()

    def cut_after(self, count: int, *, to_server: bool = True) -> threading.Event:
        """Reset the connection that carries the next `count`-th byte in one direction, once that byte is forwarded.

        Returns:
            It is set when that has happened.
        """
        return self._set(_Trap(to_server, count=count))

    def cut_at(self, pattern: bytes, *, answered: bool = False) -> threading.Event:
        """Reset the next connection that sends `pattern` to the server.

        Args:
            answered: let the server have it, and cut when its answer comes, which is not forwarded. Otherwise the
                server never gets it.

        Returns:
            It is set when that has happened.
        """
        return self._set(_Trap(True, pattern=pattern, answered=answered))

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.release()
        self.cut()

    def _take(self) -> "list[_Pair]":
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _set(self, trap: "_Trap") -> threading.Event:
        with self._lock:
            self._traps.append(trap)
        return trap.sprung

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                self.accepted += 1
                pair = _Pair(client, server)
                with self._lock:
                    self._pairs.append(pair)
                for to_server in (True, False):
                    threading.Thread(target=self._forward, args=(pair, to_server), daemon=True).start()

    def _forward(self, pair: "_Pair", to_server: bool) -> None:
        source, sink = (pair.client, pair.server) if to_server else (pair.server, pair.client)
        with suppress(OSError):
            while data := source.recv(65536):
                while not self._flowing.wait(0.05) and not pair.ended:
                    pass
                if self.latency:
                    time.sleep(self.latency)
                if pair.doomed is not None and not to_server:
                    pair.end(reset=True)
                    pair.doomed.set()
                    break
                if not self._pass_on(pair, sink, data, to_server):
                    break
        pair.end()
        source.close()  # each thread closes what it reads: the other end may still be in use by the other thread

    def _pass_on(self, pair: "_Pair", sink: socket.socket, data: bytes, to_server: bool) -> bool:
        """Forward a piece. Returns whether the connection goes on."""
        with self._lock:
            trap = next((trap for trap in self._traps if trap.takes(data, to_server)), None)
            if trap is not None:
                self._traps.remove(trap)
        if trap is None:
            sink.sendall(data)
            return True
        if trap.answered:
            pair.doomed = trap.sprung
            sink.sendall(data)
            return True
        sink.sendall(data[: trap.at])
        pair.end(reset=True)
        trap.sprung.set()
        return False


class _Pair:
    """One connection: a socket on either side."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.ended = False
        self.doomed: threading.Event | None = None

    def end(self, *, reset: bool = False) -> None:
        """Wake both threads, which then close their sockets."""
        if self.ended:
            return
        self.ended = True
        for end in (self.client, self.server):
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)


class _Trap:
    """Where a connection is to be cut: at a pattern, or after a number of bytes."""

    def __init__(self, to_server: bool, *, pattern: bytes = b"", count: int = 0, answered: bool = False) -> None:
        self.answered = answered
        self.sprung = threading.Event()
        self.at = 0
        """How much of the piece in which it sprang is forwarded."""
        self._to_server = to_server
        self._pattern = pattern
        self._left = count

    def takes(self, data: bytes, to_server: bool) -> bool:
        """Whether a piece springs it."""
        if to_server != self._to_server:
            return False
        if self._pattern:
            self.at = data.find(self._pattern)
            return self.at >= 0
        self.at = min(self._left, len(data))
        self._left -= self.at
        return self._left == 0
