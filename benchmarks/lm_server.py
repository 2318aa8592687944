"""A fast OpenAI-compatible server in another process: always the same answer, after the delay in its address.

with running() as url:
    f"{url}/200/v1"   # `api_base`: answers after 200 ms
    f"{url}/drip/v1"  # begins to answer, and never ends
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

ANSWER = "[[ ## answer ## ]]\nbecause\n\n[[ ## score ## ]]\n0.5\n\n[[ ## label ## ]]\nhigh\n\n[[ ## completed ## ]]"
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 30, "total_tokens": 230},
}
BODY = json.dumps(COMPLETION).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
DRIP_SECONDS = 0.02


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._dripping: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not separator or length is None or len(rest) < int(length[1]):
            return
        self._received = rest[int(length[1]) :]
        mode = head.split(b"/", 2)[1]
        loop = asyncio.get_running_loop()
        if mode == b"drip":
            self._transport.write(HEAD % (1 << 40))
            self._drip()
        elif mode == b"0":
            self._answer()
        else:
            loop.call_later(int(mode) / 1000, self._answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's interface
        if self._dripping:
            self._dripping.cancel()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(HEAD % len(BODY) + BODY)

    def _drip(self) -> None:
        self._transport.write(b" ")
        self._dripping = asyncio.get_running_loop().call_later(DRIP_SECONDS, self._drip)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Ends with its parent process, which closes this standard input.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def running() -> Generator[str]:
    """Run the server inside the block. Yields its address."""
    command = [sys.executable, "-m", "benchmarks.lm_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve())
