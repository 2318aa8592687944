"""What the broker does not take: a login that lacks a permission, and an exchange that is deleted while workers run."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest
from sqlalchemy import func, select

from dspex import (
    Configuration,
    CreateProgram,
    CreateSignature,
    ExecuteProgram,
    InitializeProgram,
    Producer,
    Signature,
    uuid7,
)
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, PROGRAMS_QUEUE, REQUESTS_QUEUE
from dspex.client.remote import RemoteClient
from dspex.contract.events import Event
from dspex.errors import NoAnswer, NotDeclared, PublishDenied
from store.tables import event_outbox, signatures
from tests.contract.interface import working
from tests.integration.test_tenants import add_login, as_login
from tests.queues import declare_empty, ready
from tests.rabbitmqctl import rabbitmqctl
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.application.wiring import Application
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = pytest.mark.integration

LOGIN = "worker"
JOBS = 50


class Listener:
    """A queue of events, bound while there is an exchange; what comes is kept by execution or program."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self.queue = self._channel.queue_declare("", exclusive=True).method.queue
        self.subjects: list[str] = []

    def bind(self) -> None:
        self._channel.queue_bind(self.queue, EVENTS_EXCHANGE, "#")

    def heard(self) -> list[str]:
        while (body := self._channel.basic_get(self.queue, auto_ack=True)[2]) is not None:
            self.subjects.append(json.loads(body)["subject"])
        return self.subjects

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def server(own_rabbitmq: RabbitMQWithHosts) -> RabbitMQWithHosts:
    add_login(own_rabbitmq, LOGIN)
    return own_rabbitmq


@pytest.fixture
def permit(server: RabbitMQWithHosts) -> Iterator[Callable[..., None]]:
    """Gives the workers' login these permissions, and all when the test has ended."""

    def permit(configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        rabbitmqctl(server, "set_permissions", "-p", server.host, LOGIN, configure, write, read)

    declare_empty(server.url)
    permit()
    yield permit
    permit()


@pytest.fixture
def settings(server: RabbitMQWithHosts, tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'dspex.db'}",
        broker_url=as_login(server.url, LOGIN),
        threads=4,
        lease_seconds=2,
        webhook_threads=0,
    )


@pytest.fixture
def listener(server: RabbitMQWithHosts, permit: Callable[..., None]) -> Iterator[Listener]:
    listener = Listener(server.url)
    listener.bind()
    yield listener
    listener.close()


def unsent(app: Application) -> int:
    with app.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(event_outbox)).scalar_one()


def counted(app: Application, name: str) -> float:
    return app.metrics.registry.get_sample_value(f"dspex_{name}_total") or 0.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_worker_that_may_not_answer_does_what_is_asked_and_says_so_once(
    server: RabbitMQWithHosts, permit: Callable[..., None], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    permit(write="^dspex\\..*")
    with working(settings) as app, RemoteClient(server.url, source="/tests", timeout=3, validate=False) as dspex:
        for _ in range(3):
            with pytest.raises(NoAnswer):
                dspex.list_programs()
        signature_id = uuid7()
        with pytest.raises(NoAnswer):
            dspex.create_signature("q -> a", signature_id=signature_id)
        wait_until(lambda: counted(app, "answers_lost") == 4, "each was handled once, and its answer counted")
        assert app.write(lambda connection: _signatures(connection)) == [signature_id]
        assert ready(server.url, REQUESTS_QUEUE) == ready(server.url, PROGRAMS_QUEUE) == 0
        told = [line for line in lines(caplog) if "An answer is not sent" in line]
        assert len(told) == 1
        assert "set_permissions" in told[0]
    # Nothing was left unacked.
    assert ready(server.url, REQUESTS_QUEUE) == ready(server.url, PROGRAMS_QUEUE) == 0


def _signatures(connection: Any) -> list[Any]:
    return list(connection.execute(select(signatures.c.id)).scalars())


def test_an_execution_whose_answer_is_denied_ends_and_is_told(
    server: RabbitMQWithHosts, permit: Callable[..., None], settings: Settings, listener: Listener
) -> None:
    with working(settings), RemoteClient(server.url, source="/tests") as dspex:
        program = dspex.create_program("p", "q -> a", adapter_type="mock")
        dspex.initialize_program(program.program_id)
    permit(write="^dspex\\..*")
    with working(settings) as app, RemoteClient(server.url, source="/tests", validate=False) as dspex:
        handles = [dspex.submit_program(program.program_id, {"q": str(number)}) for number in range(20)]
        ids = {str(handle.execution_id) for handle in handles}
        wait_until(lambda: ids <= set(listener.heard()), "all are told of")
        wait_until(lambda: unsent(app) == 0, "no event stays for ever")
        assert counted(app, "answers_lost") == 20


def test_events_that_may_not_be_published_wait_until_they_may(
    server: RabbitMQWithHosts,
    permit: Callable[..., None],
    settings: Settings,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is lost, nothing counted that was not sent, and neither tries nor lines without end."""
    tries: list[str] = []
    permit(write="^(?!dspex\\.events$).*")
    with working(settings) as app, Producer.connect(server.url, source="/tests") as producer:
        emit = app.emit

        def counting(event: Event, *rest: Any) -> None:
            tries.append(event.type)
            emit(event, *rest)

        object.__setattr__(app, "emit", counting)
        program_id = _program(producer)
        wait_until(lambda: len(tries) >= 3, "it is tried again")
        producer.send_all(_execute(program_id) for _ in range(JOBS))
        wait_until(lambda: unsent(app) == JOBS, "all have run, and no event is confirmed")
        assert counted(app, "events_sent") == 0
        assert listener.heard() == []
        begun = len(tries)
        threading.Event().wait(5)
        assert len(tries) - begun <= 4  # of the program's event: 4, 8, 16 s apart
        assert len(lines(caplog)) <= 12, lines(caplog)
        permit()
        wait_until(lambda: len(set(listener.heard())) == JOBS + 1, "the program's and theirs", seconds=90)
        wait_until(lambda: unsent(app) == 0, "every event is confirmed")
        assert counted(app, "events_sent") == JOBS
        assert ready(server.url, PROGRAMS_QUEUE) == 0


def _program(producer: Producer) -> Any:
    signature_id, program_id = uuid7(), uuid7()
    producer.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("q -> a")))
    producer.send(
        CreateProgram(
            program_id=program_id,
            signature_id=signature_id,
            name="p",
            adapter_type="mock",
            configuration=Configuration(),
        )
    )
    producer.send(InitializeProgram(program_id=program_id))
    return program_id


def _execute(program_id: Any) -> Any:
    return ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={"q": "?"})


def test_an_exchange_that_is_deleted_under_load_loses_no_event(
    server: RabbitMQWithHosts, permit: Callable[..., None], settings: Settings, listener: Listener
) -> None:
    """Where the workers may not declare it again, all waits for whoever does."""
    with working(settings) as app, Producer.connect(server.url, source="/tests") as producer:
        program_id = _program(producer)
        wait_until(lambda: str(program_id) in listener.heard(), "it is ready")
        permit(configure="^(?!dspex\\.events$).*")
        commands = [_execute(program_id) for _ in range(JOBS)]
        producer.send_all(commands[:10])
        wait_until(lambda: len(set(listener.heard())) == 11, "the first are told of")
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            connection.channel().exchange_delete(EVENTS_EXCHANGE)
        producer.send_all(commands[10:])
        wait_until(lambda: unsent(app) == JOBS - 10, "all have run, and those events are not confirmed")
        assert counted(app, "events_sent") == 10
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            connection.channel().exchange_declare(EVENTS_EXCHANGE, "topic", durable=True)
            listener.bind()
        wait_until(lambda: len(set(listener.heard())) == JOBS + 1, "all are told of", seconds=60)
        wait_until(lambda: unsent(app) == 0, "every event is confirmed")
        assert counted(app, "events_sent") == JOBS


@pytest.mark.parametrize("exchange", [EVENTS_EXCHANGE, COMMANDS_EXCHANGE])
def test_what_is_deleted_is_declared_again(
    server: RabbitMQWithHosts,
    permit: Callable[..., None],
    settings: Settings,
    exchange: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(amqp, "DECLARE_SECONDS", 2.0)
    with working(settings), RemoteClient(server.url, source="/tests") as dspex:
        program = dspex.create_program("p", "q -> a", adapter_type="mock")
        with pika.BlockingConnection(pika.URLParameters(server.url)) as connection:
            connection.channel().exchange_delete(exchange)
        wait_until(lambda: _is_there(server.url, exchange), "it is declared again")
        assert dspex.initialize_program(program.program_id).status == "ready"
        assert dspex.execute_program(program.program_id, {"q": "?"}).status == "completed"
    # By the connections that there are: none was lost over it.
    assert not [line for line in caplog.messages if "is away" in line or "Consumer encountered" in line]


def _is_there(url: str, exchange: str) -> bool:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        try:
            connection.channel().exchange_declare(exchange, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            return False
    return True


def test_nobody_listens_is_not_that_it_is_not_there(server: RabbitMQWithHosts, permit: Callable[..., None]) -> None:
    publisher = AmqpPublisher(as_login(server.url, LOGIN))
    publisher.publish(Publication(b"{}", exchange=EVENTS_EXCHANGE, routing_key="nobody.listens", mandatory=False))
    for mandatory in (True, False):
        with pytest.raises(NotDeclared, match="dspex declare"):
            publisher.publish(Publication(b"{}", exchange="dspex.missing", routing_key="k", mandatory=mandatory))
    permit(write="^dspex\\..*")
    with pytest.raises(PublishDenied, match="set_permissions"):
        publisher.publish(Publication(b"{}", exchange="", routing_key="some.queue"))
    publisher.close()


def test_a_message_that_is_denied_over_and_over_does_not_hold_up_others(
    server: RabbitMQWithHosts, permit: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Each closes the channel, and all that are on their way are sent again: so they are sent no more for a while."""
    caplog.set_level(logging.INFO, "dspex.amqp.link")
    permit(write="^dspex\\..*")
    publisher = AmqpPublisher(as_login(server.url, LOGIN))
    errors: list[type] = []
    for number in range(200):
        denied = publisher.submit(Publication(b"{}", exchange="", routing_key=f"reply-{number}"))
        taken = publisher.submit(Publication(b"{}", exchange=EVENTS_EXCHANGE, routing_key="k", mandatory=False))
        errors.append(type(denied.exception(30)))
        assert taken.exception(30) is None
    assert set(errors) == {PublishDenied}
    publisher.close()
    assert len([line for line in caplog.messages if "connected to" in line]) <= 10
