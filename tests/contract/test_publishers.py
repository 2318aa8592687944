"""The publishers' contract over the in-process one; RabbitMQ's is in tests/integration/test_publisher.py."""

from __future__ import annotations

import threading

import pytest

from deploy.processes import wait_until
from dspex import CreateSignature, ExecuteProgram
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EVENTS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE, Binding, Exchange
from dspex.errors import BrokerUnavailable, Unroutable
from tests.contract.publisher_contract import Arrived, PublisherContract
from workers.brokers.memory import MemoryBroker, MemoryPublisher, _matches


class Memory:
    """The in-process broker as the contract wants it."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._bindings: list[Binding] = []
        self._broker = MemoryBroker(max_bytes=1024)

    def publisher(self, *, window: int = 1000, timeout: float = 30.0) -> Publisher:
        return MemoryPublisher(self._broker, timeout=timeout, exchanges=self._exchanges, bindings=self._bindings)

    def declare(self, exchange: str, queue: str | None = None, routing_key: str = "#") -> None:
        self._exchanges.append(Exchange(exchange, "topic"))
        if queue is not None:
            self._broker.declare_queue(queue)
            self._bindings.append(Binding(exchange, queue, routing_key))

    def take(self, queue: str) -> list[Arrived]:
        arrived = []
        while (body := self._broker.queues[queue].get(0)) is not None:
            arrived.append(Arrived(body, "", None, None))
        return arrived


class TestMemoryPublisher(PublisherContract):
    ADVICE = r"dspex\.topology"

    @staticmethod
    def kept(message: Arrived) -> Arrived:
        return Arrived(message.body, "", None, None)

    @pytest.fixture
    def broker(self) -> Memory:
        return Memory()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker(max_bytes=1024, max_length=2)
    broker.declare_queue(PROGRAMS_QUEUE)
    broker.declare_queue(EXECUTIONS_QUEUE)
    return broker


def test_commands_go_where_rabbitmq_would_route_them(broker: MemoryBroker) -> None:
    publisher = MemoryPublisher(broker)
    publisher.publish(Publication(b"1", exchange=COMMANDS_EXCHANGE, routing_key=ExecuteProgram.type))
    publisher.publish(Publication(b"2", exchange=COMMANDS_EXCHANGE, routing_key=CreateSignature.type))
    publisher.publish(Publication(b"3", exchange=COMMANDS_EXCHANGE, routing_key="dspex.unknown.v1"))
    assert broker.queues[EXECUTIONS_QUEUE].get(0) == b"1"
    assert [broker.queues[PROGRAMS_QUEUE].get(0) for _ in range(2)] == [b"2", b"3"]


def test_a_full_queue_is_waited_for(broker: MemoryBroker) -> None:
    publisher = MemoryPublisher(broker, timeout=0.05)

    def publish(body: bytes, timeout: float | None = None) -> None:
        publisher.publish(
            Publication(body, exchange=COMMANDS_EXCHANGE, routing_key=ExecuteProgram.type), timeout=timeout
        )

    publish(b"1")
    publish(b"2")
    with pytest.raises(BrokerUnavailable, match="full: 2 messages wait"):
        publish(b"3")
    waiting = threading.Thread(target=publish, args=(b"4", 30.0))
    waiting.start()
    assert broker.queues[EXECUTIONS_QUEUE].get(0) == b"1"
    waiting.join(30)
    assert [broker.queues[EXECUTIONS_QUEUE].get(0) for _ in range(2)] == [b"2", b"4"]


def test_queues_that_nobody_consumes_are_not_there() -> None:
    publisher = MemoryPublisher(MemoryBroker(max_bytes=1024))
    with pytest.raises(Unroutable, match="start the workers first"):
        publisher.publish(Publication(b"", exchange=COMMANDS_EXCHANGE, routing_key=ExecuteProgram.type))


def test_events_go_to_whoever_listens(broker: MemoryBroker) -> None:
    publisher = MemoryPublisher(broker)
    publisher.publish(Publication(b"0", exchange=EVENTS_EXCHANGE, routing_key="some.event", mandatory=False))
    with pytest.raises(Unroutable):
        publisher.publish(Publication(b"1", exchange=EVENTS_EXCHANGE, routing_key="some.event"))
    heard: list[tuple[str, bytes]] = []
    publisher.listen(lambda key, body: heard.append((key, body)))
    publisher.publish(Publication(b"2", exchange=EVENTS_EXCHANGE, routing_key="some.event"))
    assert heard == [("some.event", b"2")]


@pytest.mark.parametrize("bound", ["MAX_DEAD_LETTERS", "MAX_DEAD_BYTES"])
def test_dead_letters_are_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"workers.brokers.memory.{bound}", 3)
    broker = MemoryBroker(max_bytes=1024)
    broker.declare_queue(PROGRAMS_QUEUE)
    consumer = broker.consume(PROGRAMS_QUEUE, prefetch=1, timeout=100)
    for number in range(5):
        broker.put(PROGRAMS_QUEUE, str(number).encode(), 1)
        delivery = next(consumer)
        assert delivery is not None
        consumer.nack(delivery)
    assert broker.dead_letters(PROGRAMS_QUEUE) == [b"2", b"3", b"4"]
    assert wait_until(lambda: next(consumer) is None, 1)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("#", "a.b.c", True),
        ("#", "", True),
        ("a.#", "a", True),
        ("a.#.d", "a.b.c.d", True),
        ("#.d", "a.b.c", False),
    ],
)
def test_topics(pattern: str, key: str, expected: bool) -> None:
    assert _matches(pattern.split("."), key.split(".")) is expected
