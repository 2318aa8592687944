"""An LM provider that keeps its own account: how many calls were open at once, when each came, what was refused."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.lm_server import HEAD, LENGTH

ANSWER = "[[ ## answer ## ]]\nlight is scattered by air\n\n[[ ## completed ## ]]"
INPUT_TOKENS, OUTPUT_TOKENS = 200, 30
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"


class Provider:
    """An OpenAI-compatible server in a thread of this process.

    Attributes:
        url: for `api_base`.
        refusing: whether it answers 429.
        retry_after: the seconds that it then names; None: none.
        calls: when each call came that was taken, in seconds of `time.monotonic`.
        refused: when each came that was refused.
        open: calls that are open now, and `most`, at once so far.
        busy: the seconds of all calls together.
    """

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.url = ""
        self.refusing = False
        self.retry_after: int | None = None
        self.calls: list[float] = []
        self.refused: list[float] = []
        self.open = self.most = 0
        self.busy = 0.0
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
        self.body = _json(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": "any",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
                "usage": usage | {"total_tokens": INPUT_TOKENS + OUTPUT_TOKENS},
            }
        )

    def during(self, begins: float, ends: float) -> int:
        """How many calls were taken in a time."""
        return sum(begins <= at < ends for at in self.calls)


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._received = b""
        self._since: float | None = None

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
        provider, now = self._provider, time.monotonic()
        if provider.refusing:
            provider.refused.append(now)
            body = _json({"error": {"message": "Rate limit reached", "type": None, "code": "rate_limit_exceeded"}})
            after = b"" if provider.retry_after is None else b"Retry-After: %d\r\n" % provider.retry_after
            self._transport.write(REFUSED % (after, len(body)) + body)
            return
        provider.calls.append(now)
        provider.open += 1
        provider.most = max(provider.most, provider.open)
        self._since = now
        asyncio.get_running_loop().call_later(provider.latency, self._answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's interface
        self._close()

    def _answer(self) -> None:
        self._close()
        if not self._transport.is_closing():
            self._transport.write(HEAD % len(self._provider.body) + self._provider.body)

    def _close(self) -> None:
        if self._since is not None:
            self._provider.open -= 1
            self._provider.busy += time.monotonic() - self._since
            self._since = None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def provider(latency: float) -> Generator[Provider]:
    """Run one inside the block. Its calls take so many seconds."""
    made, started = Provider(latency), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await loop.create_server(lambda: _Connection(made), "127.0.0.1", 0, backlog=1024)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        started.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
