"""Where answers may go: to a queue that the broker has named, or one that begins with the sender's login."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from dspex import ExecutionCompleted
from dspex.amqp.publication import Publication, event_publication
from dspex.errors import ForbiddenReplyQueue
from store.event_outbox import OutboxEntry
from tests.unit.system import System
from tests.unit.workers.outbound.test_answers import ended
from workers.execution.event_publisher import Announcement
from workers.security.reply_queues import answer_queue, checked, kept_queue

SERVERS = "amq.gen-X6TtQF-RGWIaPwUs_tBqlw"
DIRECT = "amq.rabbitmq.reply-to.g1h3FnJlcGx5QDEyNDQ5NDQ3NAAAFqwAAAAA.hsXdWjVDcJJxJ3w1n0Fr0g=="


@pytest.mark.parametrize(
    ("reply_to", "login"), [(SERVERS, None), (DIRECT, None), (SERVERS, "orders"), ("orders.answers", "orders")]
)
def test_it_may_go_to_its_senders_own(reply_to: str, login: str | None) -> None:
    kept = checked(reply_to, login)
    assert kept is not None
    assert kept_queue(kept) == answer_queue(reply_to, login) == reply_to


FORBIDDEN = [
    ("dspex.executions", "orders"),
    ("dspex.executions", "dspex"),
    ("dspex.executions.XQ", "dspex.executions"),
    ("dspex.answers", "dspex"),
    ("billing.answers", "orders"),
    ("orders.answers", None),
    ("orders.answers", ""),
    (".answers", ""),
    ("orders", "orders"),
    ("ordersanswers", "orders"),
    ("Orders.answers", "orders"),
    ("answers", None),
    ("", "orders"),
    ("amq.rabbitmq.reply-to", "orders"),
    ("amq.topic", "orders"),
    ("amq.gen-", "orders"),
    (f"{SERVERS}\n", "orders"),
    (f"orders\n{SERVERS} ", "billing"),
    ("orders\norders.answers", "billing"),
]


@pytest.mark.parametrize(("reply_to", "login"), FORBIDDEN)
def test_it_may_go_nowhere_else(reply_to: str, login: str | None) -> None:
    assert answer_queue(reply_to, login) is None
    with pytest.raises(ForbiddenReplyQueue, match=r"^reply_to: "):
        checked(reply_to, login)


def test_nobody_waits() -> None:
    assert checked(None, "orders") is None
    assert answer_queue(None, None) is None


@pytest.mark.parametrize("kept", ["replies", "orders.answers", "dspex.programs", "dspex\ndspex.programs", "a\nb.c"])
def test_what_rows_kept_before_is_asked_again(kept: str) -> None:
    assert kept_queue(kept) is None


@pytest.mark.parametrize(
    ("kept", "queues"),
    [(SERVERS, [SERVERS]), ("orders\norders.a", ["orders.a"]), ("orders.a", []), ("dspex.events", [])],
)
def test_an_answer_that_comes_later_is_asked_too(
    system: System, monkeypatch: pytest.MonkeyPatch, kept: str, queues: list[str]
) -> None:
    sent: list[Publication] = []
    submit = system.app.publisher.submit
    event = event_publication(b"{}", "default", ExecutionCompleted.type, "id")

    def note(publication: Publication) -> Any:
        if publication is event:
            return Future[None]()
        sent.append(publication)
        return submit(publication._replace(mandatory=False, exchange="dspex.events"))

    monkeypatch.setattr(system.app.publisher, "submit", note)
    execution = replace(ended(question="?"), reply_to=kept)
    Announcement(system.app, OutboxEntry(execution.id, execution.lock_version), lambda: event).send(execution)
    assert [publication.routing_key for publication in sent] == queues
