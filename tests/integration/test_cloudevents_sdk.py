"""On the real broker, with the official SDK of CloudEvents: what it writes is taken, in both of its modes, and it reads
what is told. Extension attributes come back with everything that is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pika
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp as amqp_binding
from cloudevents.core.bindings import rabbitmq
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage
from cloudevents.core.v1.event import CloudEvent

from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE
from dspex.client.remote import RemoteClient
from tests.contract.interface import ready, working
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = pytest.mark.integration

EXECUTE = "dspex.program.execute.v1"
EXTENSIONS = {"partitionkey": "é-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


def as_amqp(event: CloudEvent) -> RabbitMQMessage:
    """As the binding of AMQP 1.0 has it, once RabbitMQ has made headers of its properties."""
    message = amqp_binding.to_binary_event(event)
    headers = {name: value for name, value in message.application_properties.items() if value is not None}
    return RabbitMQMessage(headers, str(message.properties["content-type"]), message.application_data)


WAYS: dict[str, Callable[[CloudEvent], RabbitMQMessage]] = {
    "structured": rabbitmq.to_structured_event,
    "binary": rabbitmq.to_binary_event,
    "binary, of AMQP 1.0": as_amqp,
}


@pytest.fixture(scope="module")
def url(own_amqp_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker with a worker."""
    amqp.check(own_amqp_url)
    database: Path = tmp_path_factory.mktemp("sdk") / "dspex.db"
    with working(Settings(database_url=f"sqlite:///{database}", broker_url=own_amqp_url, threads=4)):
        yield own_amqp_url


@pytest.fixture(scope="module")
def program_id(url: str) -> UUID:
    with RemoteClient(url, source="/tests") as dspex:
        return ready(dspex, "question -> answer").program_id


class Service:
    """A service on pika and the SDK: sends events, and reads what comes."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel: Any = self._connection.channel()
        self._channel.confirm_delivery()
        self.queue: str = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self.queue, EVENTS_EXCHANGE, "#")
        self._read: list[BaseCloudEvent] = []

    def send(self, message: RabbitMQMessage, routing_key: str = EXECUTE, **properties: Any) -> None:
        sent = pika.BasicProperties(
            headers=message.headers, content_type=message.content_type, delivery_mode=2, **properties
        )
        self._channel.basic_publish(COMMANDS_EXCHANGE, routing_key, message.body, sent, mandatory=True)

    def told(self, type_: str, holds: str) -> BaseCloudEvent:
        """The event of this type whose data has this text, once it has come."""
        found: list[BaseCloudEvent] = []

        def look() -> bool:
            _, properties, body = self._channel.basic_get(self.queue, auto_ack=True)
            if properties is not None:
                message = RabbitMQMessage(properties.headers or {}, properties.content_type, body)
                self._read.append(rabbitmq.from_rabbitmq_event(message))
            found.extend(event for event in self._read if event.get_type() == type_ and holds in str(event.get_data()))
            return bool(found)

        wait_until(look, f"{type_} is told")
        return found[0]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    service = Service(url)
    yield service
    service.close()


def command(
    program_id: UUID, execution_id: str, extensions: Mapping[str, str] = EXTENSIONS, **others: Any
) -> CloudEvent:
    data = {"execution_id": execution_id, "program_id": str(program_id), "inputs": {"question": "é"}, **others}
    attributes = {"type": EXECUTE, "source": "/sdk", "datacontenttype": "application/json", **extensions}
    return CloudEvent(attributes, data)


def extensions_of(event: BaseCloudEvent, names: Iterable[str] = EXTENSIONS) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(event.get_attributes())
    return {name: attributes.get(name) for name in names}


@pytest.mark.parametrize("written", WAYS.values(), ids=WAYS.keys())
def test_what_the_sdk_asks_for_runs_and_the_sdk_reads_how_it_ended(
    service: Service, program_id: UUID, written: Callable[[CloudEvent], RabbitMQMessage]
) -> None:
    execution_id = str(uuid4())
    service.send(written(command(program_id, execution_id)), reply_to=service.queue, correlation_id="c-1")
    ended = service.told("dspex.execution.completed.v1", execution_id)
    assert (ended.get_subject(), ended.get_source()) == (execution_id, "/dspex/worker")
    assert extensions_of(ended) == EXTENSIONS
    data: Any = ended.get_data()
    assert data["execution_id"] == execution_id
    reply: Any = service.told("dspex.reply.v1", execution_id)
    assert reply.get_data()["answer"]["status"] == "completed"
    assert extensions_of(reply) == EXTENSIONS


@pytest.mark.parametrize("written", WAYS.values(), ids=WAYS.keys())
def test_what_is_refused_is_told_with_its_extensions_and_kept_so_that_it_can_be_sent_again(
    url: str, service: Service, program_id: UUID, written: Callable[[CloudEvent], RabbitMQMessage]
) -> None:
    wrong = command(program_id, str(uuid4()), nonsense=1)
    service.send(written(wrong))
    told = service.told("dspex.message.rejected.v1", wrong.get_id())
    data: Any = told.get_data()
    assert data["error"]["code"] == "invalid_message"
    assert data["error"]["message"] == "data.nonsense: is not a known field: remove it"
    assert data["message_type"] == EXECUTE
    assert extensions_of(told) == EXTENSIONS
    with RemoteClient(url, source="/tests") as dspex:
        kept = dspex.get_rejected_message(UUID(data["rejection_id"]))
    assert (kept.message_id, kept.message_type) == (wrong.get_id(), EXECUTE)
    assert '"partitionkey"' in str(kept.body)


@pytest.mark.parametrize("written", [rabbitmq.to_binary_event, as_amqp], ids=["binary", "binary, of AMQP 1.0"])
def test_a_program_that_was_too_late_is_found_when_a_binary_message_is_replayed(
    url: str, service: Service, written: Callable[[CloudEvent], RabbitMQMessage]
) -> None:
    """A replay publishes the structured form of what came in binary mode."""
    missing, execution_id = uuid4(), str(uuid4())
    service.send(written(command(missing, execution_id)), reply_to=None)
    told: Any = service.told("dspex.message.rejected.v1", str(missing)).get_data()
    with RemoteClient(url, source="/tests") as dspex:
        ready(dspex, "question -> answer", program_id=missing)
        assert dspex.replay_messages([UUID(told["rejection_id"])]).count == 1
        ended = service.told("dspex.execution.completed.v1", execution_id)
    assert extensions_of(ended) == EXTENSIONS


@pytest.mark.parametrize("written", WAYS.values(), ids=WAYS.keys())
def test_as_many_and_as_long_extensions_as_there_may_be(
    service: Service, program_id: UUID, written: Callable[[CloudEvent], RabbitMQMessage]
) -> None:
    most = {f"{'a' * 18}{n:02}": "x" for n in range(16)}
    most["a" * 18 + "00"] += "x" * (4096 - len(json.dumps(most, separators=(",", ":"))))
    execution_id = str(uuid4())
    asked = command(program_id, execution_id, most)
    service.send(written(asked), reply_to=service.queue, correlation_id="c-1")
    for type_ in ("dspex.execution.completed.v1", "dspex.reply.v1"):
        assert extensions_of(service.told(type_, execution_id), most) == most
    more = command(program_id, execution_id, most | {"a" * 18 + "00": most["a" * 18 + "00"] + "x"})
    service.send(written(more))
    told = service.told("dspex.message.rejected.v1", more.get_id())
    assert "there are too many extension attributes" in str(told.get_data())
    assert extensions_of(told, most) == dict.fromkeys(most)


def test_errors_are_answered_with_the_extensions_of_what_was_asked(service: Service) -> None:
    asked = CloudEvent(
        {"type": "dspex.program.get.v1", "source": "/sdk", "datacontenttype": "application/json", **EXTENSIONS},
        {"program_id": str(uuid4())},
    )
    service.send(rabbitmq.to_binary_event(asked), "dspex.program.get.v1", reply_to=service.queue, correlation_id="c")
    reply: Any = service.told("dspex.reply.v1", "not_found")
    assert extensions_of(reply) == EXTENSIONS
