"""A broker that has no room: who asks for much slows down, and nothing fails that can wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from dspex import Configuration, ExecuteProgram, uuid7
from dspex.aio import AsyncClient
from dspex.client.remote import RemoteClient
from dspex.errors import NotDeclared, QueueFull
from dspex.producer import Producer
from tests.contract.interface import ready, working
from tests.rabbitmqctl import rabbitmqctl
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import Settings

pytestmark = pytest.mark.integration

PATIENCE = 60.0
ROWS = [{"question": f"{number}"} for number in range(200)]
BRIEF = Configuration(parameters={"latency_ms": 20})


@pytest.fixture
def settings(own_rabbitmq: RabbitMQWithHosts, migrated_database_url: str) -> Settings:
    amqp.check(own_rabbitmq.url)
    return Settings(
        database_url=migrated_database_url, broker_url=own_rabbitmq.url, threads=4, prefetch=4, log_level="WARNING"
    )


@contextmanager
def at_most(own_rabbitmq: RabbitMQWithHosts, length: int) -> Generator[None]:
    """The queue of executions takes no more than so many."""
    limit = f'{{"max-length": {length}, "overflow": "reject-publish"}}'
    rabbitmqctl(
        own_rabbitmq, "set_policy", "-p", own_rabbitmq.host, "full", "^dspex.executions$", limit, "--apply-to", "queues"
    )
    try:
        yield
    finally:
        rabbitmqctl(own_rabbitmq, "clear_policy", "-p", own_rabbitmq.host, "full")


def test_map_slows_down_where_the_queue_is_full(own_rabbitmq: RabbitMQWithHosts, settings: Settings) -> None:
    with working(settings), RemoteClient(own_rabbitmq.url, source="/tests", timeout=PATIENCE) as client:
        program_id = ready(client, configuration=BRIEF).program_id
        with at_most(own_rabbitmq, 5):
            done = list(client.map(program_id, ROWS, in_flight=100))
            assert [handle.inputs for handle in done] == ROWS
            assert all(handle.result() for handle in done)

            async def main() -> list[dict[str, Any]]:
                handles = AsyncClient(client).map(program_id, ROWS, in_flight=100, ordered=False, timeout=PATIENCE)
                return [await handle.result() async for handle in handles]

            assert len(asyncio.run(main())) == len(ROWS)
        assert client.get_stats(program_id).execution_count == 2 * len(ROWS)


def test_a_producer_slows_down_where_the_queue_is_full(own_rabbitmq: RabbitMQWithHosts, settings: Settings) -> None:
    with working(settings), RemoteClient(own_rabbitmq.url, source="/tests", timeout=PATIENCE) as client:
        program_id = ready(client, configuration=BRIEF).program_id
        commands = [ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs=dict(row)) for row in ROWS]
        with at_most(own_rabbitmq, 5), Producer.connect(own_rabbitmq.url, "/tests", timeout=PATIENCE) as producer:
            assert producer.send_all(commands) == len(ROWS)
        wait_until(lambda: client.get_stats(program_id).execution_count == len(ROWS), "all ran", PATIENCE)


def test_a_queue_that_stays_full_is_named(own_rabbitmq: RabbitMQWithHosts, settings: Settings) -> None:
    with at_most(own_rabbitmq, 1), RemoteClient(own_rabbitmq.url, source="/tests", validate=False) as client:
        handles = [client.start_program(uuid4(), {}, timeout=2) for _ in range(20)]
        errors = [handle.pending.published.exception(PATIENCE) for handle in handles]
        assert {type(error) for error in errors} == {type(None), QueueFull}
        with pytest.raises(QueueFull, match="a queue for it is full") as full:
            client.execute_program(uuid4(), {}, timeout=1)
        assert full.value.code == "queue_full"
    rabbitmqctl(own_rabbitmq, "purge_queue", "-p", own_rabbitmq.host, "dspex.executions")


def test_map_waits_while_the_broker_has_no_memory(own_rabbitmq: RabbitMQWithHosts, settings: Settings) -> None:
    with working(settings), RemoteClient(own_rabbitmq.url, source="/tests", timeout=PATIENCE) as client:
        program_id = ready(client, configuration=BRIEF).program_id
        handles = client.map(program_id, ROWS, in_flight=50)
        assert next(handles).result()
        rabbitmqctl(own_rabbitmq, "set_vm_memory_high_watermark", "0.00001")
        timer = threading.Timer(3, lambda: rabbitmqctl(own_rabbitmq, "set_vm_memory_high_watermark", "0.4"))
        timer.start()
        assert sum(bool(handle.result()) for handle in handles) == len(ROWS) - 1
        timer.join()


def test_an_exchange_that_is_not_there_yet_is_waited_for(rabbitmq_server: Callable[[], RabbitMQWithHosts]) -> None:
    url = rabbitmq_server().url
    with RemoteClient(url, source="/tests", validate=False) as client:
        with pytest.raises(NotDeclared, match="dspex declare"):
            client.submit_program(uuid4(), {}, timeout=1)
        handles = [client.start_program(uuid4(), {}, timeout=PATIENCE) for _ in range(3)]
        amqp.check(url)  # as a worker does when it starts
        assert [handle.pending.published.exception(PATIENCE) for handle in handles] == [None] * 3
