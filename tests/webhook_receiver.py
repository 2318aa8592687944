"""A receiver of webhooks on this machine, whose answers a test scripts; it behaves as badly as it is told to.

with WebhookReceiver() as receiver:
    receiver.script = lambda request: Answer(500)
    ...  # deliver to receiver.url("hooks.test")
assert receiver.requests[0].headers["webhook-id"] == "..."
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Request:
    """What came: `connection` is the number of the TCP connection; names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Attributes:
        raw: pieces that are written in place of an answer, with `pause` seconds between them.
        reset: end the connection at once, by RST.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: Iterable[bytes] | None = None
    pause: float = 0.0
    reset: bool = False


Script = Callable[[Request], Answer]

SILENCE = Answer(raw=(), pause=60)


def dripping(start: bytes) -> Answer:
    """`start`, and then a byte now and then, for ever."""
    return Answer(raw=itertools.chain([start], itertools.repeat(b"x")), pause=0.02)


class WebhookReceiver:
    """Listens on a port of its own. Use as a context manager.

    Args:
        certificate: what `make_certificate` made, to speak TLS.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.script: Script = lambda _: Answer()
        self.requests: list[Request] = []
        self.connections = 0
        """TCP connections so far."""
        self.names: list[str | None] = []
        """What TLS clients said they want to reach (SNI)."""
        self.stopping = threading.Event()
        self._server = _Server(self)
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]

    def url(self, host: str = "127.0.0.1", path: str = "/") -> str:
        """Its URL, under any name."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        handler = type("_HandlerOfReceiver", (_Handler,), {"receiver": receiver})
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        found = super().get_request()
        self.receiver.connections += 1
        return found

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: WebhookReceiver

    def setup(self) -> None:
        self.number = self.receiver.connections
        super().setup()

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, body, self.number)
        self.receiver.requests.append(request)
        answer = self.receiver.script(request)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif answer.raw is not None:
            self._write_slowly(answer.raw, answer.pause)
        else:
            self.send_response(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    def _write_slowly(self, pieces: Iterable[bytes], pause: float) -> None:
        self.close_connection = True
        with suppress(OSError):
            for piece in pieces:
                self.wfile.write(piece)
                if self.receiver.stopping.wait(pause):
                    return
        self.receiver.stopping.wait(pause)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the base)
        """Quiet."""


def make_certificate(directory: Path, host: str) -> Path:
    """A key and a certificate for a host that nobody has signed but itself, in one file."""
    path = directory / f"{host}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*command, "-keyout", path, "-out", directory / "certificate"], check=True, capture_output=True)
    with path.open("ab") as both:
        both.write((directory / "certificate").read_bytes())
    return path
