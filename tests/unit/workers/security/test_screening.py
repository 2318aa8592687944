"""Who may not send a message has none of its data validated; the audit has one line of it."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from dspex import CreateSignature, uuid7
from dspex.contract import envelope as envelopes
from dspex.errors import Denied, MessageError
from workers.brokers.encoding import REJECT, Content, Origin, read
from workers.security.authorization import Principal, Role
from workers.security.principals import Principals
from workers.security.screening import Admission

ADMISSION = Admission(
    Principals(
        {
            "orders": Principal("orders", "acme", frozenset({Role.PRODUCER})),
            "viewer": Principal("viewer", "acme", frozenset({Role.VIEWER})),
        },
        system="workers",
    )
)
SIGNATURE_ID = str(uuid7())


def body(**changes: Any) -> bytes:
    """A message whose data does not fit."""
    data = {"signature_id": SIGNATURE_ID, "signature": {"inputs": [1] * 1000}}
    message = {"specversion": "1.0", "id": "1", "source": "/x", "type": CreateSignature.type, "data": data}
    return json.dumps(message | changes).encode()


def error_of(login: str | None, **changes: Any) -> Any:
    """Why a message is rejected."""
    message = read(Content(body(**changes)), Origin("q", login), admit=ADMISSION)
    assert message.actor_name == REJECT
    return message.kwargs["error"]


@pytest.mark.parametrize(
    ("login", "tenant", "line"),
    [
        ("stranger", None, "by stranger of tenant default (the login is not known)"),
        (None, None, "by nobody of tenant default (the login is not known)"),
        ("orders", "other", "by orders of tenant acme (for another tenant)"),
        ("viewer", None, "by viewer of tenant acme (roles: viewer)"),
    ],
)
def test_what_is_denied_is_not_validated_and_leaves_one_line(
    login: str | None,
    tenant: str | None,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(envelopes, "envelope_of", lambda _: pytest.fail("its data was validated"))
    with caplog.at_level(logging.WARNING, "dspex.audit"):
        error = error_of(login, **({"tenant": tenant} if tenant else {}))
    assert isinstance(error, Denied)
    assert caplog.messages == [f"denied: dspex.signature.create.v1 {line} on {SIGNATURE_ID}"]


@pytest.mark.parametrize("login", ["orders", "workers"])
def test_who_may_is_told_what_is_wrong_with_it(login: str) -> None:
    assert isinstance(error_of(login), MessageError)


def test_a_tenant_and_a_subject_of_another_type_are_none() -> None:
    assert isinstance(error_of("orders", tenant=["other"], data={"signature_id": {}}), MessageError)
    assert isinstance(error_of("stranger", data=[]), Denied)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda number: body(id=f"denied-{number}", **{f"e{n}": n for n in range(8_000)}),
        lambda number: body(id=f"unknown-{number}", type="t", **{f"e{n}": n for n in range(8_000)}),
        lambda number: body(id=f"invalid-{number}", data={"signature": list(range(20_000))}),
    ],
    ids=["denied", "of an unknown type", "invalid"],
)
def test_nothing_that_was_read_of_what_is_refused_is_kept(wrong: Callable[[int], bytes]) -> None:
    """Not until the garbage collector comes: few objects are made for each, so that it comes seldom."""
    bodies = [wrong(number) for number in range(4)]
    login = "orders" if b'"invalid-' in bodies[0] else "stranger"
    read(Content(bodies[0]), Origin("q", login), admit=ADMISSION)  # what is made once
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        waiting = [read(Content(one), Origin("q", login), admit=ADMISSION) for one in bodies]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert [message.actor_name for message in waiting] == [REJECT] * 4
    assert used < 2 * sum(map(len, bodies))
