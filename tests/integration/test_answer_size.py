"""On brokers that take less than we may send: RabbitMQ 4 closes the channel over more than 16 MiB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pytest

from deploy.local_servers import RabbitMQServer
from dspex import CreateSignature, ExecuteProgram, Signature, decode_event, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE
from dspex.client.remote import RemoteClient
from dspex.contract.commands import Command
from dspex.contract.envelope import CONTENT_TYPE
from dspex.contract.events import ExecutionEnded, Reply
from dspex.contract.queries import GetProgram
from dspex.errors import RequestFailed, TooLargeForBroker
from tests.conftest import start
from tests.contract.interface import ready, working
from tests.queues import declare_empty
from tests.waiting import wait_until
from workers.application.wiring import Application
from workers.local import LocalClient
from workers.settings import Settings

pytestmark = pytest.mark.integration

KIB = 1024
MIB = 1024 * KIB
TEXT = "x" * (800 * KIB)


class RabbitMQ4(RabbitMQServer):
    """With the limit of RabbitMQ 4."""

    max_message_size = 16 * MIB


class Small(RabbitMQServer):
    """An operator has set its limit."""

    max_message_size = 256 * KIB


@pytest.fixture(scope="module")
def url(servers_directory: Path) -> Iterator[str]:
    server = RabbitMQ4(servers_directory / "rabbitmq-of-16-mib")
    start(server)
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def app(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    database = tmp_path_factory.mktemp("answers") / "dspex.db"
    declare_empty(url)
    with working(Settings(database_url=f"sqlite:///{database}", broker_url=url, threads=4, webhook_threads=0)) as app:
        yield app


@pytest.fixture
def dspex(app: Application, url: str) -> Iterator[RemoteClient]:
    with RemoteClient(url, source="/tests", timeout=60) as dspex:
        yield dspex


@pytest.fixture
def channel(app: Application, url: str) -> Iterator[Any]:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        yield connection.channel()


def test_what_is_too_large_fails_alone(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        queue = connection.channel().queue_declare("", exclusive=True).method.queue
        publisher = AmqpPublisher(url)

        def submit(body: bytes) -> Any:
            return publisher.submit(Publication(body, exchange="", routing_key=queue))

        before = [submit(b"before") for _ in range(200)]
        too_large = [submit(b"x" * (16 * MIB + 1)) for _ in range(2)]
        after = [submit(b"after") for _ in range(200)]
        assert [future.exception(60) for future in before + after] == [None] * 400
        for future in too_large:
            error = future.exception(60)
            assert isinstance(error, TooLargeForBroker)
            assert f"{16 * MIB + 1} bytes" in error.message
            assert str(16 * MIB) in error.message
        assert publisher.limit == 16 * MIB
        at_the_limit = submit(b"x" * (16 * MIB))
        assert at_the_limit.exception(60) is None
        publisher.close()


def test_a_list_of_any_size_is_read_to_its_end_while_others_are_answered(app: Application, dspex: RemoteClient) -> None:
    program = ready(dspex, {"inputs": [{"name": "q", "type": "str"}], "outputs": [{"name": "a", "type": "str"}]})
    started = [dspex.submit_program(program.program_id, {"q": TEXT}) for _ in range(24)]
    ids = {handle.execution_id for handle in started}
    for handle in started:
        handle.result(60)
    others = [dspex.submit_program(program.program_id, {"q": str(number)}) for number in range(100)]
    pages = [dspex.list_executions(program_id=program.program_id, limit=1000)]
    while pages[-1].next_cursor is not None:
        pages.append(dspex.list_executions(program_id=program.program_id, limit=1000, cursor=pages[-1].next_cursor))
    for handle in others:
        assert handle.result(60)
    found = [item.execution_id for page in pages for item in page.items]
    assert len(found) == len(set(found))
    assert ids <= set(found)
    assert len(pages) >= 2
    assert all(page.items for page in pages)
    assert app.publisher.limit is None, "the channel was never closed"
    assert _answers_lost(app) == 0


def _answers_lost(app: Application) -> float:
    return app.metrics.registry.get_sample_value("dspex_answers_lost_total") or 0.0


def ask(channel: Any, command: Command, reply_to: str) -> str:
    envelope = wrap(command, source="/tests")
    properties = pika.BasicProperties(
        content_type=CONTENT_TYPE, message_id=envelope.id, correlation_id="7", reply_to=reply_to, user_id="guest"
    )
    channel.basic_publish(COMMANDS_EXCHANGE, envelope.type, envelope.encode(), properties)
    return envelope.id


def rejected(app: Application, message_id: str) -> list[str]:
    with LocalClient(app) as local:
        return [item.error.code for item in local.list_dead_messages().items if item.message_id == message_id]


def conflicts(dspex: RemoteClient) -> list[Command]:
    """Commands that change something, which cannot be done."""
    program = ready(dspex, "q -> a")
    execution = dspex.execute_program(program.program_id, {"q": "first"})
    signature_id = uuid7()
    dspex.create_signature("q -> a", signature_id=signature_id)
    return [
        ExecuteProgram(execution_id=execution.execution_id, program_id=program.program_id, inputs={"q": "second"}),
        CreateSignature(signature_id=signature_id, signature=Signature.parse("other -> a")),
    ]


class TestNobodyWaitsAnyMore:
    @pytest.mark.parametrize("which", [0, 1])
    def test_what_cannot_be_done_is_recorded(
        self, app: Application, dspex: RemoteClient, channel: Any, which: int
    ) -> None:
        message_id = ask(channel, conflicts(dspex)[which], "guest.gone")
        wait_until(lambda: rejected(app, message_id) == ["conflict"], "it is recorded")

    def test_a_query_is_not(self, app: Application, dspex: RemoteClient, channel: Any) -> None:
        message_id = ask(channel, GetProgram(program_id=uuid7()), "guest.gone")
        later = ask(channel, conflicts(dspex)[1], "guest.gone")
        wait_until(lambda: rejected(app, later) == ["conflict"], "what came later is recorded")
        dspex.list_programs()
        assert rejected(app, message_id) == []

    def test_whoever_waits_is_told_and_nothing_is_recorded(
        self, app: Application, dspex: RemoteClient, channel: Any
    ) -> None:
        channel.queue_declare("guest.there", auto_delete=True)
        message_id = ask(channel, conflicts(dspex)[0], "guest.there")
        assert _error(channel, "guest.there") == "conflict"
        assert rejected(app, message_id) == []

    def test_direct_reply_to(self, app: Application, url: str, dspex: RemoteClient, channel: Any) -> None:
        command = conflicts(dspex)[0]
        answers: list[bytes] = []
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            asking = connection.channel()
            asking.basic_consume("amq.rabbitmq.reply-to", lambda *got: answers.append(got[3]), auto_ack=True)
            told = ask(asking, command, "amq.rabbitmq.reply-to")

            def look() -> bool:
                connection.process_data_events(0)
                return bool(answers)

            wait_until(look, "the answer comes")
        gone = self._that_is_gone(url, channel)
        message_id = ask(channel, command, gone)
        wait_until(lambda: rejected(app, message_id) == ["conflict"], "it is recorded")
        assert rejected(app, told) == []

    @staticmethod
    def _that_is_gone(url: str, channel: Any) -> str:
        """Where somebody waited, as RabbitMQ names it to whoever answers."""
        queue = channel.queue_declare("", exclusive=True).method.queue
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            asking = connection.channel()
            asking.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
            asking.basic_publish("", queue, b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
            found: list[str] = []

            def look() -> bool:
                properties = channel.basic_get(queue, auto_ack=True)[1]
                found.extend([] if properties is None else [properties.reply_to])
                return bool(found)

            wait_until(look, "it is named")
        return found[0]


def _error(channel: Any, queue: str) -> str | None:
    found: list[Any] = []

    def look() -> bool:
        body = channel.basic_get(queue, auto_ack=True)[2]
        found.extend([] if body is None else [decode_event(body).data])
        return bool(found)

    wait_until(look, "it is answered")
    assert isinstance(found[0], Reply)
    return None if found[0].error is None else found[0].error.code


@pytest.fixture
def small(servers_directory: Path, tmp_path: Path) -> Iterator[str]:
    """With a worker."""
    server = Small(servers_directory / "rabbitmq-of-256-kib")
    start(server)
    declare_empty(server.url)
    database = f"sqlite:///{tmp_path / 'dspex.db'}"
    with working(Settings(database_url=database, broker_url=server.url, threads=4, lease_seconds=1, webhook_threads=0)):
        yield server.url
    server.stop()


def test_large_outputs_are_told_by_reference_and_others_go_on(small: str) -> None:
    large = {
        "inputs": [{"name": "q", "type": "str"}],
        "outputs": [{"name": "a", "type": {"type": "string", "minLength": 300 * KIB}}],
    }
    with (
        RemoteClient(small, source="/tests", timeout=60) as dspex,
        pika.BlockingConnection(pika.URLParameters(small)) as connection,
    ):
        channel = connection.channel()
        events = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(events, EVENTS_EXCHANGE, "default.dspex.execution.completed.v1")
        too_large, fine = (ready(dspex, signature).program_id for signature in (large, "q -> a"))
        lost = dspex.submit_program(too_large, {"q": "?"})
        others = [dspex.submit_program(fine, {"q": str(number)}) for number in range(50)]
        for handle in others:
            assert handle.result(60)
        with pytest.raises(RequestFailed) as raised:
            lost.result(60)
        assert raised.value.code == "answer_too_large"
        told: dict[UUID, Any] = {}

        def look() -> bool:
            while (body := channel.basic_get(events, auto_ack=True)[2]) is not None:
                event = decode_event(body).data
                told[UUID(json.loads(body)["subject"])] = event
            return len(told) == 51

        wait_until(look, "all ends are told of")
        assert lost.execution_id is not None
        reference = told[lost.execution_id]
        assert isinstance(reference, ExecutionEnded)
        assert reference.status == "completed"
        with pytest.raises(RequestFailed) as raised:
            dspex.list_executions(program_id=too_large)
        assert raised.value.code == "answer_too_large"
        assert str(lost.execution_id) in str(raised.value)
