"""Settlements go out in groups, and never for a message that nobody has settled: against a channel that keeps count."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pika
import pika.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.amqp.properties import Properties
from workers.brokers import subscription as subscription_module
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.subscription import Subscription

Settled = dict[int, Disposition]


class Channel:
    """What RabbitMQ does with acks and nacks: of a tag that it does not wait for, it closes the channel."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.settled: Settled = {}
        self.frames = 0
        self.cancelled = 0
        self._tag = 0
        self.to_come: deque[bytes] = deque()

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self._settle({t for t in self.waiting if t <= tag} if multiple else {tag}, Disposition.ACK)

    def basic_nack(self, tag: int, requeue: bool) -> None:
        self._settle({tag}, Disposition.REQUEUE if requeue else Disposition.DEAD_LETTER)

    def _settle(self, tags: set[int], disposition: Disposition) -> None:
        assert tags
        assert tags <= self.waiting
        self.frames += 1
        self.waiting -= tags
        self.settled |= dict.fromkeys(tags, disposition)

    def cancel(self) -> None:
        self.cancelled += 1

    def consume(self, queue_name: str, inactivity_timeout: float) -> Iterator[Any]:
        while True:
            if not self.to_come:
                yield None, None, None
                continue
            self._tag += 1
            self.waiting.add(self._tag)
            body = self.to_come.popleft()
            yield SimpleNamespace(delivery_tag=self._tag), Properties(body_size=len(body)), body

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None  # what declares the topology


class Connection:
    def __init__(self) -> None:
        self.one = Channel()
        self.callbacks: list[Callable[[], None]] = []
        self.closed = False

    def channel(self) -> Channel:
        return self.one

    def process_data_events(self, time_limit: float) -> None:
        """Nothing comes."""

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise pika.exceptions.ConnectionWrongStateError
        self.callbacks.append(callback)

    def run_callbacks(self) -> int:
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        return len(callbacks)

    def close(self) -> None:
        self.closed = True


def subscribe(monkeypatch: pytest.MonkeyPatch) -> tuple[Subscription, Connection]:
    connection = Connection()
    monkeypatch.setattr(subscription_module, "connect", lambda *_: connection)
    url = pika.URLParameters("amqp://localhost/")
    return Subscription(url, "q", queue_type="classic", prefetch=9, timeout=0, max_bytes=1024), connection


def deliver(subscription: Subscription, connection: Connection, number: int) -> list[Delivery]:
    connection.one.to_come.extend([b"{}"] * number)
    found = [subscription.get() for _ in range(number)]
    assert subscription.get() is None
    return [delivery for delivery in found if delivery is not None]


def test_many_settlements_are_one_wake_up_and_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, connection = subscribe(monkeypatch)
    for delivery in reversed(deliver(subscription, connection, 50)):
        delivery.settle(Disposition.ACK)
    assert connection.run_callbacks() == 1
    assert connection.one.frames == 1
    assert connection.one.settled == dict.fromkeys(range(1, 51), Disposition.ACK)


def test_an_older_message_that_runs_is_not_acked_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, connection = subscribe(monkeypatch)
    deliveries = deliver(subscription, connection, 6)
    for number in (4, 1, 0, 5):
        deliveries[number].settle(Disposition.ACK)
    connection.run_callbacks()
    assert connection.one.waiting == {3, 4}
    assert connection.one.frames == 3
    deliveries[3].settle(Disposition.ACK)
    connection.run_callbacks()
    assert connection.one.waiting == {3}


def test_what_waits_is_sent_when_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, connection = subscribe(monkeypatch)
    first, second, third = deliver(subscription, connection, 3)
    first.settle(Disposition.ACK)
    second.settle(Disposition.DEAD_LETTER)
    subscription.close()
    third.settle(Disposition.ACK)
    assert connection.closed
    assert connection.one.settled == {1: Disposition.ACK, 2: Disposition.DEAD_LETTER}


def test_a_connection_that_is_gone_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription, connection = subscribe(monkeypatch)
    first, second = deliver(subscription, connection, 2)
    connection.closed = True
    first.settle(Disposition.ACK)
    second.settle(Disposition.REQUEUE)
    assert connection.one.settled == {}


step = st.one_of(
    st.tuples(st.just("deliver"), st.integers(1, 8)),
    st.tuples(st.sampled_from(Disposition), st.integers(0, 30)),
    st.tuples(st.just("flush"), st.just(0)),
)


@given(st.lists(step, max_size=60))
def test_whatever_the_order_each_ends_as_it_was_settled(steps: list[tuple[str | Disposition, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        subscription, connection = subscribe(monkeypatch)
        running: list[Delivery] = []
        expected: Settled = {}
        for what, number in steps:
            if what == "deliver":
                running += deliver(subscription, connection, number)
            elif what == "flush":
                connection.run_callbacks()
            elif running and isinstance(what, Disposition):
                delivery = running.pop(number % len(running))
                delivery.settle(what)
                delivery.settle(Disposition.DEAD_LETTER)  # the second time there is nothing to settle
                expected[delivery.tag] = what
        connection.run_callbacks()
        assert connection.one.settled == expected
        assert connection.one.waiting == {delivery.tag for delivery in running}


def test_no_more_is_taken_than_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ's limit counts messages: 256 of the largest would be 256 MiB."""
    monkeypatch.setattr(subscription_module, "MOST_BYTES", 10)
    subscription, connection = subscribe(monkeypatch)
    connection.one.to_come.extend([b"1234"] * 5)
    found = [subscription.get() for _ in range(5)]
    deliveries = [delivery for delivery in found if delivery is not None]
    assert len(deliveries) == 3
    assert connection.one.cancelled == 1
    deliveries[0].settle(Disposition.ACK)
    connection.run_callbacks()
    assert subscription.get() is None, "still eight bytes"
    deliveries[1].settle(Disposition.REQUEUE)
    connection.run_callbacks()
    assert [subscription.get() is None for _ in range(3)] == [False, False, True]
    assert connection.one.cancelled == 2
