"""The webhook receiver in Node: what it takes, what it refuses, and that it handles an event once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from dspex import ErrorDetail, ExecutionCompleted, ExecutionFailed, uuid7, wrap
from dspex.contract.events import Event
from tests.acceptance.node import installed
from tests.pages import block

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver"
KEY = b"a secret of 32 bytes, for a test"


class Receiver(NamedTuple):
    port: int
    output: IO[str]

    def line(self) -> dict[str, str | None]:
        """The next line that it prints."""
        read: dict[str, str | None] = json.loads(self.output.readline())
        return read


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(EXAMPLE, tmp_path_factory.mktemp("receiver")) / "receive.mjs"


@contextmanager
def running(program: Path) -> Generator[Receiver]:
    secret = f"whsec_{base64.b64encode(KEY).decode()}"
    environment = os.environ | {"WEBHOOK_SECRET": secret, "ORDERS_WEBHOOK_SECRET": secret}
    with subprocess.Popen(["node", str(program), "0"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            listening = process.stdout.readline().split()
            yield Receiver(int(listening[-1]), process.stdout)
        finally:
            process.kill()


def signature(message_id: str, timestamp: int, body: bytes, key: bytes = KEY) -> str:
    """As Standard Webhooks 1.0.0 says."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def post(receiver: Receiver, body: bytes, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{receiver.port}/dspex"
    request = urllib.request.Request(url, body, {"content-type": "application/cloudevents+json"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return status


def signed(body: bytes, message_id: str, *, age: int = 0, key: bytes = KEY) -> dict[str, str]:
    timestamp = int(time.time()) - age
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(message_id, timestamp, body, key),
    }


def ended(event: Event) -> tuple[str, bytes]:
    envelope = wrap(event, source="/dspex/workers")
    return envelope.id, envelope.encode()


def test_it_takes_what_is_signed_once(program: Path) -> None:
    completed = ExecutionCompleted(
        execution_id=uuid7(), program_id=uuid7(), outputs={"a": "é"}, attempt=1, duration_ms=1
    )
    error = ErrorDetail(code="auth", message="no")
    failed = ExecutionFailed(execution_id=uuid7(), program_id=uuid7(), error=error, attempt=1, duration_ms=1)
    with running(program) as receiver:
        first, body = ended(completed)
        assert post(receiver, body, signed(body, first)) == 204
        assert receiver.line() == {"type": completed.type, "id": str(completed.execution_id), "code": None}
        assert post(receiver, body, signed(body, first)) == 204  # again, and nothing is printed

        second, body = ended(failed)
        rotated = signed(body, second)
        old = signature(second, int(rotated["webhook-timestamp"]), body, b"the secret that was there before")
        assert post(receiver, body, rotated | {"webhook-signature": f"{old} {rotated['webhook-signature']}"}) == 204
        assert receiver.line() == {"type": failed.type, "id": str(failed.execution_id), "code": "auth"}


def test_it_refuses_the_rest(program: Path) -> None:
    message_id, body = ended(
        ExecutionCompleted(execution_id=uuid7(), program_id=uuid7(), outputs={}, attempt=1, duration_ms=1)
    )
    good = signed(body, message_id)
    changed = bytes([*body[:40], body[40] ^ 1, *body[41:]])
    with running(program) as receiver:
        assert post(receiver, body, {}) == 401
        assert post(receiver, changed, good) == 401
        assert post(receiver, body, good | {"webhook-id": "another"}) == 401
        assert post(receiver, body, signed(body, message_id, age=3600)) == 401
        assert post(receiver, body, signed(body, message_id, age=-3600)) == 401
        assert post(receiver, body, signed(body, message_id, key=b"of somebody else")) == 401
        assert post(receiver, b"no JSON", signed(b"no JSON", message_id)) == 400
        assert post(receiver, body, good) == 204
        assert receiver.line()["type"] == "dspex.execution.completed.v1"


def test_that_of_the_page_takes_what_is_signed(program: Path) -> None:
    code = block("docs/webhooks.md", "js")
    assert code.count(".listen(8080)") == 1
    page = program.with_name("page.mjs")
    ours = ".listen(0, function () { console.log(this.address().port); })"
    page.write_text(code.replace(".listen(8080)", ours), encoding="utf-8")
    event = ExecutionCompleted(execution_id=uuid7(), program_id=uuid7(), outputs={}, attempt=1, duration_ms=1)
    message_id, body = ended(event)
    with running(page) as receiver:
        assert post(receiver, body, signed(body, message_id)) == 204
        assert post(receiver, body, signed(body, "another")) == 204
        assert post(receiver, body, signed(body, message_id) | {"webhook-id": "changed"}) == 401
