"""What is sent and not confirmed has so many slots, and each is given back once, however the sending ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import cast

import pytest

from dspex import ExecutionCompleted
from dspex.amqp.publication import Publication, event_publication
from dspex.amqp.publisher import Publisher
from dspex.errors import BrokerUnavailable, NotDeclared, PublishDenied, PublishError, Unroutable
from store import event_outbox
from store.event_outbox import OutboxEntry
from store.executions import Execution
from tests.unit.system import System
from workers.application.wiring import Application
from workers.execution.event_publisher import Announcement, announce
from workers.telemetry.metrics import Metrics

EVENT, ANSWER = "dspex.events", ""


class Scripted:
    """A publisher that does with each message as it is told; what it is told nothing of stays unconfirmed."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self.refuse: dict[str, PublishError] = {}
        self.pending: list[tuple[str, Future[None]]] = []

    def submit(self, publication: Publication) -> Future[None]:
        exchange = publication.exchange
        if exchange in self.refuse:
            raise self.refuse[exchange]
        future: Future[None] = Future()
        self.pending.append((exchange, future))
        return future

    def settle(self, errors: dict[str, PublishError]) -> None:
        pending, self.pending = self.pending, []
        for exchange, future in pending:
            if exchange in errors:
                future.set_exception(errors[exchange])
            else:
                future.set_result(None)


@pytest.fixture
def publisher() -> Scripted:
    return Scripted()


@pytest.fixture
def app(system: System, publisher: Scripted) -> Application:
    """Of the system, with one slot and a publisher that is told what to do."""
    return replace(
        system.app,
        unconfirmed=threading.BoundedSemaphore(1),
        publisher=cast("Publisher", publisher),
        metrics=Metrics(),
    )


@pytest.fixture
def ended(system: System) -> Execution:
    """One that has ended, whose answer somebody waits for."""
    execution_id = system.execute(system.program(adapter="scripted"), question="why")
    system.event(ExecutionCompleted, execution_id)
    system.wait(lambda: not system.unsent())
    return replace(system.ended(execution_id), reply_to="amq.gen-0123456789abcdef")


def add_event(system: System, ended: Execution) -> None:
    entries = {OutboxEntry(ended.id, ended.lock_version): ended.tenant}
    system.app.write(lambda connection: event_outbox.add(connection, entries, 60.0))


def is_owed(system: System, ended: Execution) -> bool:
    return system.app.write(lambda connection: bool(event_outbox.pending(connection, [ended.id])))


def is_free(app: Application) -> bool:
    """Whether the one slot is; it is not given back twice either, which raises."""
    free = app.unconfirmed.acquire(blocking=False)
    if free:
        app.unconfirmed.release()
    return free


def told(app: Application) -> float | None:
    """How often all messages of an end were confirmed."""
    return app.metrics.registry.get_sample_value("dspex_events_sent_total")


AWAY, DENIED, NOBODY = BrokerUnavailable("away"), PublishDenied("denied"), Unroutable("nobody")


@pytest.mark.parametrize(
    ("refused", "failed", "still_owed"),
    [
        pytest.param({}, {}, False, id="confirmed"),
        pytest.param({EVENT: AWAY}, {}, True, id="the event is not taken"),
        pytest.param({ANSWER: AWAY}, {}, True, id="the answer is not taken"),
        pytest.param({EVENT: AWAY, ANSWER: AWAY}, {}, True, id="neither is taken"),
        pytest.param({}, {EVENT: NotDeclared("no exchange")}, True, id="the event fails"),
        pytest.param({}, {EVENT: DENIED}, True, id="the event is denied"),
        pytest.param({}, {ANSWER: AWAY}, True, id="the answer fails"),
        pytest.param({}, {EVENT: AWAY, ANSWER: AWAY}, True, id="both fail"),
        pytest.param({EVENT: AWAY}, {ANSWER: AWAY}, True, id="one is not taken and one fails"),
        pytest.param({}, {ANSWER: NOBODY}, False, id="nobody waits for the answer"),
        pytest.param({}, {ANSWER: DENIED}, False, id="the answer is denied"),
    ],
)
def test_a_place_is_given_back_however_it_ends(
    system: System,
    app: Application,
    publisher: Scripted,
    ended: Execution,
    refused: dict[str, PublishError],
    failed: dict[str, PublishError],
    still_owed: bool,
) -> None:
    add_event(system, ended)
    publisher.refuse = refused
    announce(app, ended)
    assert is_free(app) == (not publisher.pending)
    publisher.settle(failed)
    assert is_free(app)
    assert told(app) == (0 if still_owed else 1)
    system.wait(lambda: is_owed(system, ended) == still_owed)


def test_without_a_place_nothing_is_sent_and_it_stays_owed(
    system: System, app: Application, publisher: Scripted, ended: Execution
) -> None:
    add_event(system, ended)
    announce(app, ended)
    assert [exchange for exchange, _ in publisher.pending] == [ANSWER, EVENT]
    announce(app, ended)
    assert len(publisher.pending) == 2
    assert is_owed(system, ended)
    (_, answer), (_, event) = publisher.pending
    answer.set_result(None)
    assert not is_free(app)
    event.set_result(None)
    assert is_free(app)
    system.wait(lambda: not is_owed(system, ended))
    publisher.pending.clear()
    announce(app, ended)
    assert len(publisher.pending) == 2


def test_the_event_is_encoded_when_the_answer_has_been_sent_or_before(
    app: Application, publisher: Scripted, ended: Execution
) -> None:
    sent = list[list[str]]()

    def event() -> Publication:
        sent.append([exchange for exchange, _ in publisher.pending])
        return event_publication(b"{}", ended.tenant, ExecutionCompleted.type, "id")

    entry = OutboxEntry(ended.id, ended.lock_version, ended.tenant)
    Announcement(app, entry, event).send(ended)
    assert sent == [[ANSWER]]
    publisher.settle({})
    early = Announcement(app, entry, event)
    early.encode()
    assert sent == [[ANSWER], []]
    early.send(ended)
    assert sent == [[ANSWER], []]
    assert [exchange for exchange, _ in publisher.pending] == [ANSWER, EVENT]


def test_a_process_has_2048_slots(system: System) -> None:
    taken = 0
    while system.app.unconfirmed.acquire(blocking=False):
        taken += 1
    assert taken == 2048
