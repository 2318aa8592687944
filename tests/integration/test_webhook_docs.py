"""docs/webhooks.md: its receiver in Python takes what the sender sends, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dspex import ExecutionCompleted, uuid7, wrap
from dspex.errors import SettingsError
from dspex.webhooks import new_secret
from tests.pages import ROOT, block
from tests.webhook_receiver import WebhookReceiver
from workers.settings import Settings
from workers.webhooks.addresses import Guard
from workers.webhooks.bodies import encode
from workers.webhooks.sender import Delivery, Sender

PAGE = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")


def test_the_receiver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = new_secret(), new_secret()
    monkeypatch.setenv("ORDERS_WEBHOOK_SECRET", f"{new} {old}")
    code = block("docs/webhooks.md", "python", "import os")
    module: dict[str, Any] = {}
    exec(compile(code, "docs/webhooks.md", "exec"), module)
    event = ExecutionCompleted(execution_id=uuid7(), program_id=uuid7(), outputs={"a": 1}, attempt=1, duration_ms=1)
    with WebhookReceiver() as receiver:
        guard = Guard(hosts=[f"127.0.0.1:{receiver.port}"])
        with Sender(guard) as sender:
            for secret in (old, new, new_secret()):
                sender.send(Delivery("id", receiver.url(), encode(wrap(event, source="/tests")), [secret]))
    answers = [module["receive"](request.body, request.headers) for request in receiver.requests]
    assert answers == [204, 204, 401]
    assert capsys.readouterr().out.count("dspex.execution.completed.v1") == 2
    module["SECRETS"].clear()  # that is no fault of what is received: it must not be answered as one
    with pytest.raises(SettingsError):
        module["receive"](receiver.requests[0].body, receiver.requests[0].headers)
    monkeypatch.setenv("ORDERS_WEBHOOK_SECRET", "sesame")
    with pytest.raises(SettingsError, match="whsec_"):
        exec(compile(code, "docs/webhooks.md", "exec"), {})


def test_the_settings_are_those_that_there_are() -> None:
    named = set(re.findall(r"^\| `DSPEX_(WEBHOOK_\w+)`", PAGE, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields if name.startswith("webhook_")}
    (delays,) = re.findall(r"`(0,5,300[\d,]*)`", PAGE)
    assert tuple(map(float, delays.split(","))) == Settings().webhook_retries
