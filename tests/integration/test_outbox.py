"""The outbox with a real RabbitMQ: crashes, and servers that are killed and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from deploy.local_servers import PostgresServer
from dspex import ExecuteProgram, InitializeProgram, decode_command, uuid7
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.errors import BrokerUnavailable, NotDeclared
from dspex.outbox import OutboxRelay
from tests.contract.outbox_service import KeepingPublisher, Service, service
from tests.integration.test_publisher import RabbitMQ
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shop(database_url: str) -> Iterator[Service]:
    with service(database_url) as shop:
        yield shop


def declare(broker: RabbitMQ, queue: str) -> None:
    """As workers do whenever they connect."""

    def declare_all(channel: BlockingChannel) -> None:
        alternate = {"alternate-exchange": "dspex.unrouted"}
        channel.exchange_declare("dspex.unrouted", "fanout", durable=True)
        channel.exchange_declare(COMMANDS_EXCHANGE, "topic", durable=True, arguments=alternate)
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, COMMANDS_EXCHANGE, ExecuteProgram.type)

    broker.run(declare_all)


@contextmanager
def bound(url: str) -> Generator[tuple[RabbitMQ, str]]:
    """The broker, with a queue that takes what executes a program."""
    broker, queue = RabbitMQ(url), f"outbox-{uuid.uuid4().hex}"
    declare(broker, queue)
    yield broker, queue
    broker.run(lambda channel: channel.queue_delete(queue) and None)
    broker.close()


@pytest.fixture
def queue(amqp_url: str) -> Iterator[tuple[RabbitMQ, str]]:
    with bound(amqp_url) as found:
        yield found


def test_messages_arrive_as_a_producer_sends_them(shop: Service, queue: tuple[RabbitMQ, str]) -> None:
    broker, name = queue
    ids = shop.add(250)
    relay = OutboxRelay(shop.outbox, shop.engine, broker.publisher())
    assert relay.run_once() == 250
    arrived = broker.take(name)
    assert [message.message_id for message in arrived] == ids
    assert [decode_command(message.body).id for message in arrived] == ids
    assert {message.routing_key for message in arrived} == {"dspex.program.execute.v1"}
    assert shop.left() == 0


def test_what_no_queue_takes_does_not_hold_up_others(shop: Service, queue: tuple[RabbitMQ, str]) -> None:
    broker, name = queue
    with shop.engine.begin() as connection:
        poisoned = shop.outbox.add(connection, InitializeProgram(program_id=uuid7()))
    ids = shop.add(20)
    relay = OutboxRelay(shop.outbox, shop.engine, broker.publisher())
    assert relay.run_once() == 20
    assert [message.message_id for message in broker.take(name)] == ids
    (row,) = shop.rows()
    assert (str(row.id), row.attempts) == (poisoned, 1)
    assert row.last_error.startswith("unroutable: no queue is bound")


CRASH = """
import os, signal, sys

from sqlalchemy import create_engine

import dspex.outbox.relay
from dspex import AmqpPublisher
from tests.contract.outbox_service import Service

database_url, broker_url = sys.argv[1:]
shop = Service(create_engine(database_url))
dspex.outbox.relay.forget = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
dspex.outbox.relay.OutboxRelay(shop.outbox, shop.engine, AmqpPublisher(broker_url)).run_once()
"""


def test_killed_between_confirm_and_delete(shop: Service, database_url: str, queue: tuple[RabbitMQ, str]) -> None:
    """Published again, under the same ids, and by nobody before the claim has run out."""
    broker, name = queue
    ids = shop.add(20)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "messages"), str(ROOT)])}
    killed = subprocess.run([sys.executable, "-c", CRASH, database_url, broker.url], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert shop.left() == 20

    relay = OutboxRelay(shop.outbox, shop.engine, broker.publisher())
    assert relay.run_once() == 0
    shop.let_time_pass()
    assert relay.run_once() == 20
    assert [message.message_id for message in broker.take(name)] == [*ids, *ids]
    assert shop.left() == 0


def test_the_broker_is_killed_and_comes_back(shop: Service, rabbitmq_server: Callable[[], RabbitMQWithHosts]) -> None:
    server = rabbitmq_server()
    with bound(server.url) as (broker, name), ExitStack() as stack:
        for _ in range(2):
            publisher = broker.publisher(timeout=2)
            relay = OutboxRelay(shop.outbox, shop.engine, publisher, batch=20, interval=0.02, timeout=2)
            stack.enter_context(relay)
        ids = shop.add(100)
        wait_until(lambda: shop.left() < 100, "the first are published")
        server.kill()
        ids += shop.add(100)
        wait_until(lambda: any(row.last_error for row in shop.rows()), "the outage is noticed")
        ids += shop.add(100)
        server.start()
        declare(broker, name)  # what was bound just before the kill may be forgotten
        wait_until(lambda: shop.left() == 0, "all are published", 100)
        server.kill()  # what was confirmed is on disk, not in memory
        server.start()
        arrived = Counter(message.message_id for message in broker.take(name))
    assert set(arrived) == set(ids)


def test_a_server_that_is_down_from_the_start(rabbitmq_server: Callable[[], RabbitMQWithHosts], tmp_path: Path) -> None:
    server = rabbitmq_server()
    server.kill()
    with service(f"sqlite:///{tmp_path / 'orders.db'}") as shop, ExitStack() as stack:
        shop.add(3)

        def relay(timeout: float) -> OutboxRelay:
            publisher = AmqpPublisher(server.url, timeout=timeout)
            stack.callback(publisher.close)
            return OutboxRelay(shop.outbox, shop.engine, publisher, timeout=timeout)

        with pytest.raises(BrokerUnavailable, match="no connection"):
            relay(1).run_once()
        server.start()
        with pytest.raises(NotDeclared, match="dspex declare"):
            relay(30).run_once()
        with bound(server.url):
            assert relay(30).run_once() == 3


def test_the_database_is_killed_and_comes_back(postgres_server: Callable[[], PostgresServer]) -> None:
    """After the confirm, with the batch in hand: it is published again, and so is all that came meanwhile."""
    server = postgres_server()
    with service(server.url) as shop:
        publisher = _KillsTheDatabase(server)
        ids = shop.add(30)
        with OutboxRelay(shop.outbox, shop.engine, publisher, batch=20, interval=0.02, timeout=2):
            wait_until(lambda: not publisher.kills and not server.running, "it is killed")
            server.start()
            shop.engine.dispose()
            ids += shop.add(10)
            wait_until(lambda: shop.left() == 0, "all are published", 60)
    arrived = Counter(publisher.ids)
    assert set(arrived) == set(ids)
    assert [arrived[message_id] for message_id in ids] == [2] * 20 + [1] * 20


class _KillsTheDatabase(KeepingPublisher):
    """When it has taken its first messages."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self.kills = True
        self._server = server

    def settle(self) -> None:
        super().settle()
        if self.kills and self.taken:
            self._server.kill()
            self.kills = False
