"""The client on a real broker that is restarted, or whose connection breaks: every result comes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pika
import pytest

from dspex import Configuration, ExecutionStatus, decode_event, uuid7
from dspex.aio import AsyncClient
from dspex.amqp.topology import EVENTS_EXCHANGE
from dspex.client.remote import RemoteClient, as_completed
from dspex.errors import BrokerUnavailable, NoAnswer, RequestFailed
from tests.contract.interface import ready, working
from tests.contract.test_handles import run
from tests.tcp_proxy import TcpProxy
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.brokers import amqp
from workers.settings import Settings

PATIENCE = 90.0
LATENCY = Configuration.model_validate(
    {"parameters": {"latency_ms": {"distribution": "uniform", "low": 0, "high": 6000}}}
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker(own_rabbitmq: RabbitMQWithHosts) -> RabbitMQWithHosts:
    """A test may kill it."""
    amqp.check(own_rabbitmq.url)
    return own_rabbitmq


@pytest.fixture
def settings(broker: RabbitMQWithHosts, migrated_database_url: str) -> Settings:
    return Settings(
        database_url=migrated_database_url, broker_url=broker.url, threads=64, lease_seconds=5, log_level="WARNING"
    )


def questions(count: int) -> list[dict[str, Any]]:
    return [{"question": f"{number}"} for number in range(count)]


def test_every_result_comes_where_the_broker_is_killed_and_comes_back(
    broker: RabbitMQWithHosts, settings: Settings
) -> None:
    with working(settings), RemoteClient(broker.url, source="/tests", timeout=PATIENCE) as client:
        program_id = ready(client, configuration=LATENCY).program_id
        handles = [client.submit_program(program_id, row) for row in questions(100)]
        broker.kill()
        broker.start()
        later = [client.submit_program(program_id, row) for row in questions(20)]
        done = list(as_completed([*handles, *later], timeout=PATIENCE))
        assert len({handle.execution_id for handle in done}) == 120
        assert all(handle.result() for handle in done)
        assert client.get_stats(program_id).execution_count == 120


def test_what_was_asked_over_a_connection_that_broke_is_looked_up(
    broker: RabbitMQWithHosts, settings: Settings
) -> None:
    with (
        TcpProxy(broker.url) as proxy,
        working(settings),
        RemoteClient(proxy.url, source="/tests", timeout=PATIENCE) as client,
    ):
        program_id = ready(client, configuration=LATENCY).program_id
        handles = client.map(program_id, questions(60), in_flight=30, ordered=False)
        done = [next(handles)]
        proxy.cut()
        done += handles
        assert len(done) == 60
        assert all(handle.result() for handle in done)


def test_a_refusal_that_went_to_a_lost_queue_is_asked_for_again(broker: RabbitMQWithHosts, settings: Settings) -> None:
    with TcpProxy(broker.url) as proxy, RemoteClient(proxy.url, source="/tests", timeout=PATIENCE) as client:
        handle = client.submit_program(uuid4(), {"question": "?"}, validate=False)  # no worker takes it yet
        proxy.cut()
        with pytest.raises(NoAnswer):
            handle.result(timeout=0.1)
        with working(settings), pytest.raises(RequestFailed) as refused:
            handle.result(timeout=PATIENCE)
        assert refused.value.code == "not_found"


def test_where_no_worker_runs_inputs_cannot_be_checked_and_can_be_sent(
    broker: RabbitMQWithHosts, settings: Settings
) -> None:
    with RemoteClient(broker.url, source="/tests", timeout=PATIENCE) as client:
        with working(settings):
            program_id = ready(client).program_id
        client.timeout = 0.2
        with pytest.raises(NoAnswer, match=r"Nothing was sent.*validate=False"):
            client.submit_program(program_id, {"question": "?"})
        client.timeout = PATIENCE
        handle = client.submit_program(program_id, {"question": "?"}, validate=False)
        with working(settings):
            assert handle.result(timeout=PATIENCE)
            assert client.handle(handle.execution_id).execution(timeout=PATIENCE).status == ExecutionStatus.COMPLETED
            assert len(client.list_executions(program_id=program_id).items) == 1


def test_a_client_that_comes_back_finds_its_results(broker: RabbitMQWithHosts, settings: Settings) -> None:
    with ExitStack() as stack:
        stack.enter_context(working(settings))
        first = stack.enter_context(RemoteClient(broker.url, source="/tests"))
        program_id = ready(first, configuration=LATENCY).program_id
        handles = [first.submit_program(program_id, row) for row in questions(20)]
        ids = [handle.execution_id for handle in handles]
        first.close()
        with pytest.raises(BrokerUnavailable, match="the execution goes on"):
            [handle.result(timeout=PATIENCE) for handle in handles]
        again = stack.enter_context(RemoteClient(broker.url, source="/tests"))
        results = {handle.execution_id: handle.result() for handle in map(again.handle, ids)}
        assert set(results) == set(ids)

        async def main() -> list[dict[str, Any]]:
            async with AsyncClient.connect(broker.url, source="/tests") as client:
                found = [await client.handle(execution_id) for execution_id in ids]
                return [await handle.result(timeout=PATIENCE) for handle in found]

        assert run(main()) == [results[execution_id] for execution_id in ids]


def test_a_dropped_handle_leaves_the_execution(broker: RabbitMQWithHosts, settings: Settings) -> None:
    with working(settings), RemoteClient(broker.url, source="/tests") as client:
        program_id = ready(client).program_id
        execution_id = uuid7()
        client.submit_program(program_id, {"question": "?"}, execution_id=execution_id)
        wait_until(lambda: bool(client.list_executions(program_id=program_id).items), "it was taken")
        assert client.handle(execution_id).execution(timeout=PATIENCE).status == ExecutionStatus.COMPLETED


def test_the_events_of_an_execution_have_the_trace_of_who_asked(broker: RabbitMQWithHosts, settings: Settings) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    events: list[str | None] = []
    with (
        working(settings),
        RemoteClient(broker.url, source="/tests", timeout=PATIENCE) as client,
        pika.BlockingConnection(pika.URLParameters(broker.url)) as connection,
    ):
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EVENTS_EXCHANGE, "#")
        program_id = ready(client).program_id
        assert client.execute_program(program_id, {"question": "?"}, traceparent=trace).outputs
        for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=PATIENCE):
            assert body is not None, "no event came"
            envelope = decode_event(body)
            events.append(envelope.traceparent)
            if envelope.type == "dspex.execution.completed.v1":
                break
    assert events == [None, trace]  # ready, completed
