"""The proxy of the tests itself: each fault is what it says it is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.tcp_proxy import TcpProxy
from tests.waiting import wait_until


class Server:
    """Answers each piece of data with `+` and the data, and keeps what it got."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.got = b""
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.got += data
                    connection.sendall(b"+" + data)
                self.ends.append("closed")
            except ConnectionResetError:
                self.ends.append("reset")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[TcpProxy]:
    with TcpProxy(server.url) as proxy:
        yield proxy


def connect(proxy: TcpProxy) -> socket.socket:
    parts = urlsplit(proxy.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)


def ask(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    return connection.recv(65536)


def ask_twice(connection: socket.socket, question: bytes) -> None:
    for _ in range(2):
        ask(connection, question)


def test_it_forwards(proxy: TcpProxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert (ask(one, b"a"), ask(other, b"b")) == (b"+a", b"+b")
        assert (proxy.accepted, proxy.open) == (2, 2)
    wait_until(lambda: proxy.open == 0, "both ends are closed")


def test_a_cut_is_an_end(proxy: TcpProxy, server: Server) -> None:
    with connect(proxy) as connection:
        ask(connection, b"a")
        proxy.cut()
        assert connection.recv(1) == b""
        wait_until(lambda: server.ends == ["closed"], "the server sees the end")
    with connect(proxy) as connection:
        assert ask(connection, b"b") == b"+b"


def test_a_reset_is_a_reset_on_both_sides(proxy: TcpProxy, server: Server) -> None:
    with connect(proxy) as connection:
        ask(connection, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    wait_until(lambda: server.ends == ["reset"], "the server sees the reset")


def test_a_black_hole_is_silent_and_gives_back_what_it_held(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        ask(connection, b"a")
        proxy.hold()
        connection.sendall(b"b")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        with connect(proxy) as other:
            other.settimeout(0.3)
            with pytest.raises(TimeoutError):
                ask(other, b"c")
        proxy.release()
        connection.settimeout(5)
        assert connection.recv(10) == b"+b"


def test_a_cut_in_a_black_hole_is_seen(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        ask(connection, b"a")
        proxy.hold()
        connection.sendall(b"b")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_refused_until_it_accepts(proxy: TcpProxy) -> None:
    with connect(proxy) as connection:
        ask(connection, b"a")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert ask(connection, b"b") == b"+b"
    proxy.accept()
    with connect(proxy) as connection:
        assert ask(connection, b"c") == b"+c"


def test_latency(proxy: TcpProxy) -> None:
    proxy.latency = 0.1
    with connect(proxy) as connection:
        began = time.monotonic()
        assert ask(connection, b"a") == b"+a"
        assert time.monotonic() - began >= 0.2


def test_cut_after_bytes_to_the_server(proxy: TcpProxy, server: Server) -> None:
    with connect(proxy) as connection:
        ask(connection, b"abc")
        cut = proxy.cut_after(5)
        ask(connection, b"def")
        assert not cut.is_set()
        with pytest.raises(ConnectionResetError):
            ask_twice(connection, b"ghi")  # the first answer may be faster than the reset
        assert cut.wait(5)
    wait_until(lambda: server.ends == ["reset"], "the server sees the reset")
    assert server.got in (b"abcdefgh", b"abcdef")  # a reset may overtake what was just sent
    with connect(proxy) as connection:
        assert ask(connection, b"x") == b"+x"


def test_cut_after_bytes_to_the_client(proxy: TcpProxy, server: Server) -> None:
    cut = proxy.cut_after(2, to_server=False)
    with connect(proxy) as connection, suppress(ConnectionResetError):
        connection.sendall(b"abc")
        assert cut.wait(5)
        assert connection.recv(10) in (b"+a", b"")
    assert server.got == b"abc"


def test_cut_at_a_pattern_before_the_server_has_it(proxy: TcpProxy, server: Server) -> None:
    with connect(proxy) as connection:
        cut = proxy.cut_at(b"COMMIT")
        assert ask(connection, b"BEGIN") == b"+BEGIN"
        with pytest.raises(ConnectionResetError):
            ask(connection, b"COMMIT")
        assert cut.wait(5)
    wait_until(lambda: server.ends == ["reset"], "the server sees the reset")
    assert server.got == b"BEGIN"


def test_cut_at_a_pattern_when_the_server_has_answered(proxy: TcpProxy, server: Server) -> None:
    with connect(proxy) as connection:
        cut = proxy.cut_at(b"COMMIT", answered=True)
        assert ask(connection, b"BEGIN") == b"+BEGIN"
        with pytest.raises(ConnectionResetError):
            ask(connection, b"COMMIT")
        assert cut.wait(5)
        assert server.got == b"BEGINCOMMIT"
    with connect(proxy) as connection:
        assert ask(connection, b"COMMIT") == b"+COMMIT"
