"""AmqpPublisher and Producer against a real RabbitMQ: the contract, and what only a network can do to them."""

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from urllib.parse import urlsplit

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from deploy.processes import free_port, wait_until
from dspex import ExecuteProgram, decode_command, uuid7
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.errors import BrokerUnavailable, MessageTooLarge, NotDeclared, PublishError, QueueFull
from dspex.producer import Producer
from tests.contract.publisher_contract import Arrived, PublisherContract
from tests.rabbitmqctl import rabbitmqctl
from tests.tcp_proxy import TcpProxy
from tests.virtual_hosts import RabbitMQWithHosts


class RabbitMQ:
    """A RabbitMQ as the contract wants it, through pika's blocking connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._publishers: list[AmqpPublisher] = []

    def publisher(self, *, window: int = 1000, timeout: float = 30.0) -> AmqpPublisher:
        publisher = AmqpPublisher(self.url, window=window, timeout=timeout)
        self._publishers.append(publisher)
        return publisher

    def declare(self, exchange: str, queue: str | None = None, routing_key: str = "#") -> None:
        def run(channel: BlockingChannel) -> None:
            channel.exchange_declare(exchange, "topic", durable=True)
            if queue is not None:
                channel.queue_declare(queue, durable=True)
                channel.queue_bind(queue, exchange, routing_key)

        self.run(run)

    def take(self, queue: str) -> list[Arrived]:
        arrived: list[Arrived] = []

        def run(channel: BlockingChannel) -> None:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None or properties is None:
                    return
                assert properties.delivery_mode == 2
                assert properties.content_type == "application/cloudevents+json"
                ids = (properties.message_id, properties.correlation_id)
                arrived.append(Arrived(body or b"", method.routing_key, *ids))

        self.run(run)
        return arrived

    def run(self, work: Callable[[BlockingChannel], None]) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            work(connection.channel())

    def close(self) -> None:
        for publisher in self._publishers:
            publisher.close(timeout=1)


@pytest.fixture
def broker(amqp_url: str) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(amqp_url)
    yield broker
    broker.close()


@pytest.fixture
def name() -> str:
    return f"publisher-{uuid.uuid4().hex}"


class TestAmqpPublisher(PublisherContract):
    @pytest.fixture
    def broker(self, amqp_url: str) -> Iterator[RabbitMQ]:
        broker = RabbitMQ(amqp_url)
        yield broker
        broker.close()


def with_login(url: str, login: str, path: str = "/%2F") -> str:
    parts = urlsplit(url)
    return f"amqp://{login}@{parts.hostname}:{parts.port}{path}"


@pytest.mark.parametrize(
    ("login", "path", "said"),
    [
        ("guest:sesame", "/%2F", "refused the login"),
        ("guest:guest", "/nowhere", "virtual host does not exist"),
    ],
)
def test_refused_at_once_and_without_the_password(amqp_url: str, login: str, path: str, said: str) -> None:
    publisher = AmqpPublisher(with_login(amqp_url, login, path), timeout=60)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match=said) as caught:
            publisher.publish(Publication(b"", exchange="any", routing_key="k"))
        assert "sesame" not in str(caught.value)
        assert "'guest'" in str(caught.value)
    publisher.close()


def test_server_down() -> None:
    publisher = AmqpPublisher(f"amqp://guest:sesame@127.0.0.1:{free_port()}/", window=1, timeout=1)
    future = publisher.submit(Publication(b"", exchange="any", routing_key="k"), timeout=2)
    with pytest.raises(BrokerUnavailable, match="unconfirmed already"):
        publisher.submit(Publication(b"", exchange="any", routing_key="k"))
    with pytest.raises(BrokerUnavailable, match=r"not confirmed in time.*connection refused") as caught:
        future.result(30)
    assert "sesame" not in str(caught.value)
    publisher.close()


def test_nothing_connects_before_the_first_message(amqp_url: str) -> None:
    with TcpProxy(amqp_url) as proxy:
        publisher = AmqpPublisher(proxy.url)
        assert proxy.accepted == 0
        publisher.close()
        assert proxy.accepted == 0


def test_a_server_that_accepts_and_says_nothing(amqp_url: str) -> None:
    with TcpProxy(amqp_url) as proxy:
        proxy.hold()
        publisher = AmqpPublisher(proxy.url, timeout=1)
        with pytest.raises(BrokerUnavailable, match="not confirmed in time"):
            publisher.publish(Publication(b"", exchange="any", routing_key="k"))
        future = publisher.submit(Publication(b"", exchange="any", routing_key="k"), timeout=60)
        publisher.close(timeout=0.2)
        assert isinstance(future.exception(0), BrokerUnavailable)


def test_a_cut_connection_loses_nothing(broker: RabbitMQ, name: str) -> None:
    broker.declare(name, name)
    with TcpProxy(broker.url) as proxy:
        publisher = AmqpPublisher(proxy.url, window=200, timeout=60)
        futures: list[Future[None]] = []
        for number in range(2000):
            if number % 500 == 250:
                proxy.cut()
            futures.append(publisher.submit(Publication(str(number).encode(), exchange=name, routing_key="k")))
        assert [future.exception(60) for future in futures] == [None] * 2000
        assert proxy.accepted > 1
        publisher.close()
    arrived = {int(arrived.body) for arrived in broker.take(name)}
    assert arrived == set(range(2000))


def test_connections_that_end_as_soon_as_they_are_there_are_made_ever_more_seldom(broker: RabbitMQ, name: str) -> None:
    """The broker takes each, confirms what is sent, and ends it: nothing waits, so each message makes a new one."""
    broker.declare(name, name)
    with TcpProxy(broker.url) as proxy:
        publisher = AmqpPublisher(proxy.url, timeout=60)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            publisher.publish(Publication(b"", exchange=name, routing_key="k"))
            proxy.cut()
        assert proxy.accepted <= 8  # without growing pauses, some 30
        publisher.close(timeout=1)


def test_a_virtual_host_that_is_deleted_under_a_publisher(rabbitmq_server: Callable[[], RabbitMQWithHosts]) -> None:
    """What is published fails at once, and the broker is asked ever more seldom; once it is there, it is found."""
    server = rabbitmq_server()
    rabbitmqctl(server, "add_vhost", "gone")
    rabbitmqctl(server, "set_permissions", "-p", "gone", "guest", ".*", ".*", ".*")
    url = server.url.replace(server.host, "gone")
    with TcpProxy(url) as proxy:
        publisher = AmqpPublisher(proxy.url, timeout=20)
        publisher.publish(Publication(b"", exchange="amq.topic", routing_key="k", mandatory=False))
        rabbitmqctl(server, "delete_vhost", "gone")
        end, failed = time.monotonic() + 2.5, 0
        while time.monotonic() < end:
            with pytest.raises(BrokerUnavailable, match="virtual host does not exist"):
                publisher.publish(Publication(b"", exchange="amq.topic", routing_key="k", mandatory=False))
            failed += 1
        assert failed > 100
        assert proxy.accepted <= 9
        rabbitmqctl(server, "add_vhost", "gone")
        rabbitmqctl(server, "set_permissions", "-p", "gone", "guest", ".*", ".*", ".*")

        def there() -> bool:
            with suppress(BrokerUnavailable):
                publisher.publish(Publication(b"", exchange="amq.topic", routing_key="k", mandatory=False))
                return True
            return False

        assert wait_until(there, 20)
        publisher.close(timeout=1)


def test_confirms_lost_on_the_way_are_asked_for_again(broker: RabbitMQ, name: str) -> None:
    broker.declare(name, name)
    with TcpProxy(broker.url) as proxy:
        publisher = AmqpPublisher(proxy.url, timeout=60)
        publisher.publish(Publication(b"first", exchange=name, routing_key="k"))
        proxy.hold()
        future = publisher.submit(Publication(b"second", exchange=name, routing_key="k"))
        with pytest.raises(TimeoutError):
            future.result(0.2)
        proxy.cut()
        proxy.release()
        assert future.result(60) is None
        publisher.close()
    assert b"second" in {arrived.body for arrived in broker.take(name)}


def test_a_silent_connection_is_noticed_by_its_heartbeat(broker: RabbitMQ, name: str) -> None:
    broker.declare(name, name)
    with TcpProxy(broker.url) as proxy:
        publisher = AmqpPublisher(f"{proxy.url}?heartbeat=1", timeout=60)
        publisher.publish(Publication(b"first", exchange=name, routing_key="k"))
        proxy.hold()
        future = publisher.submit(Publication(b"second", exchange=name, routing_key="k"))
        threading.Timer(8, proxy.release).start()  # pika looks every 6 s
        assert future.result(60) is None
        publisher.close()


def test_killed_while_publishing(rabbitmq_server: Callable[[], RabbitMQWithHosts], name: str) -> None:
    server = rabbitmq_server()
    broker = RabbitMQ(server.url)
    broker.declare(name, name)
    publisher = broker.publisher(timeout=100)
    futures: dict[int, Future[None]] = {}
    publishing = threading.Event()

    def publish() -> None:
        for number in range(20_000):
            futures[number] = publisher.submit(Publication(str(number).encode(), exchange=name, routing_key="k"))
            if number == 3000:
                publishing.set()

    thread = threading.Thread(target=publish)
    thread.start()
    assert publishing.wait(60)
    server.kill()
    confirmed_before = sum(future.done() for future in list(futures.values()))
    server.start()
    thread.join(100)
    assert [future.exception(100) for future in futures.values()] == [None] * 20_000
    assert 0 < confirmed_before < 20_000
    server.kill()  # what was confirmed is on disk, not in memory
    server.start()
    assert {int(arrived.body) for arrived in broker.take(name)} == set(range(20_000))
    broker.close()


def test_killed_and_gone(rabbitmq_server: Callable[[], RabbitMQWithHosts], name: str) -> None:
    server = rabbitmq_server()
    broker = RabbitMQ(server.url)
    broker.declare(name, name)
    publisher = broker.publisher(timeout=2)
    publisher.publish(Publication(b"1", exchange=name, routing_key="k"))
    server.kill()
    with pytest.raises(BrokerUnavailable, match="no connection"):
        publisher.publish(Publication(b"2", exchange=name, routing_key="k"))
    broker.close()


def test_stopped_and_started_again(rabbitmq_server: Callable[[], RabbitMQWithHosts], name: str) -> None:
    server = rabbitmq_server()
    broker = RabbitMQ(server.url)
    broker.declare(name, name)
    publisher = broker.publisher(timeout=100)
    publisher.publish(Publication(b"1", exchange=name, routing_key="k"))
    server.restart()
    publisher.publish(Publication(b"2", exchange=name, routing_key="k"))
    assert [arrived.body for arrived in broker.take(name)] == [b"1", b"2"]
    broker.close()


def test_a_memory_alarm_holds_messages_up(rabbitmq_server: Callable[[], RabbitMQWithHosts], name: str) -> None:
    server = rabbitmq_server()
    broker = RabbitMQ(server.url)
    broker.declare(name, name)
    publisher = broker.publisher(timeout=100)
    publisher.publish(Publication(b"before", exchange=name, routing_key="k"))
    rabbitmqctl(server, "set_vm_memory_high_watermark", "0.00001")
    impatient = publisher.submit(Publication(b"impatient", exchange=name, routing_key="k"), timeout=2)
    with pytest.raises(BrokerUnavailable, match="alarm"):
        impatient.result(30)
    patient = [publisher.submit(Publication(b"patient", exchange=name, routing_key="k")) for _ in range(10)]
    rabbitmqctl(server, "set_vm_memory_high_watermark", "0.4")
    assert [future.exception(100) for future in patient] == [None] * 10
    assert [arrived.body for arrived in broker.take(name)].count(b"patient") == 10
    broker.close()


def test_a_full_queue_refuses(broker: RabbitMQ, name: str) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}

    def declare(channel: BlockingChannel) -> None:
        channel.exchange_declare(name, "topic", durable=True)
        channel.queue_declare(name, durable=True, arguments=limits)
        channel.queue_bind(name, name, "#")

    broker.run(declare)
    publisher = broker.publisher()
    futures = [publisher.submit(Publication(b"", exchange=name, routing_key="k")) for _ in range(50)]
    errors = [future.exception(30) for future in futures]
    assert errors[0] is None
    assert any(isinstance(error, QueueFull) and "full" in str(error) for error in errors)
    assert {type(error) for error in errors} == {type(None), QueueFull}
    assert len(broker.take(name)) == sum(error is None for error in errors)


def test_ids_that_do_not_fit_into_a_property(broker: RabbitMQ, name: str) -> None:
    broker.declare(name, name)
    publisher = broker.publisher()
    wrong = publisher.submit(Publication(b"", exchange=name, routing_key="k", message_id="i" * 256))
    right = publisher.submit(Publication(b"", exchange=name, routing_key="k", message_id="i" * 255))
    assert isinstance(wrong.exception(30), PublishError)
    assert right.result(30) is None


def _publish_in_child(publisher: AmqpPublisher, name: str) -> None:
    publisher.publish(Publication(b"child", exchange=name, routing_key="k"))
    publisher.close()


def test_both_sides_of_a_fork(broker: RabbitMQ, name: str) -> None:
    broker.declare(name, name)
    publisher = broker.publisher()
    publisher.publish(Publication(b"before", exchange=name, routing_key="k"))
    child = multiprocessing.get_context("fork").Process(target=_publish_in_child, args=(publisher, name))
    child.start()
    futures = [publisher.submit(Publication(b"parent", exchange=name, routing_key="k")) for _ in range(100)]
    child.join(30)
    assert child.exitcode == 0
    publisher.publish(Publication(b"after", exchange=name, routing_key="k"))
    assert all(future.exception(30) is None for future in futures)
    bodies = [arrived.body for arrived in broker.take(name)]
    assert (bodies[0], bodies[-1], bodies.count(b"child"), bodies.count(b"parent")) == (b"before", b"after", 1, 100)


class TestProducer:
    """On the exchange of commands, which is the same for all: a queue of each test's own is bound to it."""

    @pytest.fixture
    def queue(self, broker: RabbitMQ, name: str) -> Iterator[str]:
        def declare(channel: BlockingChannel) -> None:
            channel.exchange_declare("dspex.unrouted", "fanout", durable=True)
            alternate = {"alternate-exchange": "dspex.unrouted"}
            channel.exchange_declare(COMMANDS_EXCHANGE, "topic", durable=True, arguments=alternate)
            channel.queue_declare(name, durable=True)
            channel.queue_bind(name, COMMANDS_EXCHANGE, "dspex.program.execute.v1")

        broker.run(declare)
        yield name
        broker.run(lambda channel: channel.queue_delete(name) and None)

    @staticmethod
    def command(text: str = "") -> ExecuteProgram:
        return ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"question": text})

    def test_send(self, broker: RabbitMQ, queue: str) -> None:
        command = self.command("why?")
        traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
        with Producer.connect(broker.url, "/orders") as producer:
            message_id = producer.send(command, traceparent=traceparent)
        (arrived,) = broker.take(queue)
        envelope = decode_command(arrived.body)
        assert arrived[1:] == ("dspex.program.execute.v1", message_id, None)
        assert (envelope.id, envelope.source, envelope.traceparent) == (message_id, "/orders", traceparent)
        assert envelope.data == command

    def test_send_all(self, broker: RabbitMQ, queue: str) -> None:
        with Producer.connect(broker.url, "/orders", window=100) as producer:
            commands = [self.command() for _ in range(1000)]
            assert producer.send_all(iter(commands)) == 1000
            assert producer.send_all([]) == 0
        sent = [decode_command(arrived.body).data for arrived in broker.take(queue)]
        assert sent == commands

    def test_send_all_names_the_first_failure(self, broker: RabbitMQ, queue: str) -> None:
        commands = [self.command() for _ in range(20)]
        commands[7] = self.command("x" * 1024 * 1024)
        with Producer.connect(broker.url, "/orders") as producer, pytest.raises(MessageTooLarge) as caught:
            producer.send_all(commands)
        assert f"command 8, dspex.program.execute.v1 of {commands[7].execution_id}" in str(caught.value)
        arrived = len(broker.take(queue))
        assert f"{arrived} other commands are confirmed" in str(caught.value)
        assert arrived >= 7

    def test_a_publisher_that_was_given_stays_open(self, broker: RabbitMQ, queue: str) -> None:
        publisher = broker.publisher()
        for _ in range(2):
            with Producer(publisher, source="/orders") as producer:
                producer.send(self.command())
        assert len(broker.take(queue)) == 2

    def test_nothing_is_declared(self, rabbitmq_server: Callable[[], RabbitMQWithHosts]) -> None:
        with Producer.connect(rabbitmq_server().url, "/orders", timeout=1) as producer:
            with pytest.raises(NotDeclared, match="dspex declare"):
                producer.send(self.command())
            with pytest.raises(NotDeclared, match=r"command 1, .* 0 other commands are confirmed"):
                producer.send_all([self.command(), self.command()])
