"""What every `dspex.amqp.publisher.Publisher` promises. Run it against an implementation by giving it a broker:

class TestMyPublisher(PublisherContract):
    @pytest.fixture
    def broker(self) -> Broker: ...

A broker that keeps less of a message than RabbitMQ says so by `kept`, one that is mended otherwise by `ADVICE`.
"""

import re
import threading
import uuid
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import pytest

from dspex.amqp.publication import Publication
from dspex.amqp.publisher import Publisher
from dspex.errors import BrokerUnavailable, NotDeclared, Unroutable


class Arrived(NamedTuple):
    """A message out of a queue."""

    body: bytes
    routing_key: str
    message_id: str | None
    correlation_id: str | None


class Broker(Protocol):
    """The broker under test, and the way around the publisher to see what it did."""

    def publisher(self, *, window: int = 1000, timeout: float = 30.0) -> Publisher:
        """A new publisher; the fixture closes it after the test."""
        ...

    def declare(self, exchange: str, queue: str | None = None, routing_key: str = "#") -> None:
        """Declare a durable topic exchange, and a durable queue bound to it where one is named."""
        ...

    def take(self, queue: str) -> list[Arrived]:
        """Remove all that is in a queue now, oldest first."""
        ...


class PublisherContract:
    """The suite. Exchange and queue have a name of their own in each test."""

    ADVICE = "worker.*dspex declare"
    """What an `Unroutable`, and a `NotDeclared`, says is to be done."""

    @staticmethod
    def kept(message: Arrived) -> Arrived:
        """What of a message the broker keeps: all."""
        return message

    @pytest.fixture
    def broker(self) -> Broker:
        """The implementation under test."""
        raise NotImplementedError

    @pytest.fixture
    def name(self) -> str:
        """An exchange, and a queue bound to it, of this test."""
        return f"contract-{uuid.uuid4().hex}"

    def test_published_means_stored(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        broker.publisher().publish(
            Publication(b"{}", exchange=name, routing_key="some.key", message_id="m-1", correlation_id="c-1")
        )
        assert broker.take(name) == [self.kept(Arrived(b"{}", "some.key", "m-1", "c-1"))]

    def test_a_done_future_means_stored(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        future = broker.publisher().submit(Publication(b"{}", exchange=name, routing_key="k"))
        assert future.result(30) is None
        assert not future.cancel()
        assert [arrived.body for arrived in broker.take(name)] == [b"{}"]

    def test_order_and_content_are_kept(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        bodies = [f"{number}:".encode() + b"\x00\xff" * number for number in range(300)]
        publisher = broker.publisher()
        futures = [publisher.submit(Publication(body, exchange=name, routing_key="k")) for body in bodies]
        assert [future.result(30) for future in futures] == [None] * 300
        assert [arrived.body for arrived in broker.take(name)] == bodies

    def test_a_body_of_a_mebibyte_and_an_empty_one(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        publisher = broker.publisher()
        for body in (b"x" * 1024 * 1024, b""):
            publisher.publish(Publication(body, exchange=name, routing_key="k"))
            assert [arrived.body for arrived in broker.take(name)] == [body]

    def test_no_queue_bound(self, broker: Broker, name: str) -> None:
        broker.declare(name, name, "wanted.*")
        publisher = broker.publisher()
        keys = ["wanted.1", "other", "wanted.2", "another", "other"]
        futures = [publisher.submit(Publication(b"same", exchange=name, routing_key=key)) for key in keys]
        errors = [type(future.exception(30)) for future in futures]
        assert errors == [type(None), Unroutable, type(None), Unroutable, Unroutable]
        wanted = [Arrived(b"same", key, None, None) for key in ("wanted.1", "wanted.2")]
        assert broker.take(name) == list(map(self.kept, wanted))
        with pytest.raises(Unroutable, match=f"(?s){name}.*other.*{self.ADVICE}"):
            publisher.publish(Publication(b"", exchange=name, routing_key="other"))

    def test_no_queue_is_needed_where_not_mandatory(self, broker: Broker, name: str) -> None:
        broker.declare(name)
        broker.publisher().publish(Publication(b"{}", exchange=name, routing_key="event", mandatory=False))

    @pytest.mark.parametrize("mandatory", [True, False])
    def test_no_such_exchange(self, broker: Broker, name: str, mandatory: bool) -> None:
        broker.declare(name, name)
        publisher = broker.publisher()
        exchanges = [name, f"{name}-missing", name]
        for _ in range(3):
            futures = [
                publisher.submit(Publication(b"{}", exchange=exchange, routing_key="k", mandatory=mandatory))
                for exchange in exchanges
            ]
            errors = [future.exception(30) for future in futures]
            assert errors[0] is None
            assert type(errors[1]) is NotDeclared
            assert f"{name}-missing" in str(errors[1])
            assert re.search(self.ADVICE, str(errors[1]))
            assert errors[2] is None
        assert len(broker.take(name)) >= 6

    def test_declared_after_the_first_failure(self, broker: Broker, name: str) -> None:
        publisher = broker.publisher()
        with pytest.raises(NotDeclared):
            publisher.publish(Publication(b"1", exchange=name, routing_key="k"))
        broker.declare(name, name)
        publisher.publish(Publication(b"2", exchange=name, routing_key="k"))
        assert [arrived.body for arrived in broker.take(name)] == [b"2"]

    def test_sixteen_threads(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        publisher = broker.publisher(window=100)
        futures: list[list[Future[None]]] = [[] for _ in range(16)]

        def work(thread: int) -> None:
            for number in range(500):
                body = f"{thread}:{number}".encode()
                futures[thread].append(publisher.submit(Publication(body, exchange=name, routing_key="k")))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(future.exception(60) is None for of_thread in futures for future in of_thread)
        arrived = [arrived.body.decode() for arrived in broker.take(name)]
        for thread_number in range(16):
            mine = [body for body in arrived if body.startswith(f"{thread_number}:")]
            assert mine == [f"{thread_number}:{number}" for number in range(500)]

    def test_a_small_window_lets_everything_through(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        publisher = broker.publisher(window=2)
        futures = [publisher.submit(Publication(b"{}", exchange=name, routing_key="k")) for _ in range(200)]
        assert all(future.exception(30) is None for future in futures)
        assert len(broker.take(name)) == 200

    def test_close_waits_for_what_is_on_its_way(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        publisher = broker.publisher()
        futures = [publisher.submit(Publication(b"{}", exchange=name, routing_key="k")) for _ in range(500)]
        publisher.close()
        assert all(future.done() and future.exception() is None for future in futures)
        assert len(broker.take(name)) == 500

    def test_closed(self, broker: Broker, name: str) -> None:
        broker.declare(name, name)
        publisher = broker.publisher()
        publisher.publish(Publication(b"{}", exchange=name, routing_key="k"))
        publisher.close()
        publisher.close()
        with pytest.raises(BrokerUnavailable, match="closed"):
            publisher.submit(Publication(b"{}", exchange=name, routing_key="k"))
        with pytest.raises(BrokerUnavailable, match="closed"):
            publisher.publish(Publication(b"{}", exchange=name, routing_key="k"))
        assert len(broker.take(name)) == 1

    def test_closing_one_that_was_never_used(self, broker: Broker) -> None:
        broker.publisher().close()
