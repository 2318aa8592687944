"""The time of a verb: all that it does shares it, whoever does not answer; and what is said when it is over."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from dspex.aio import AsyncClient
from dspex.client.remote import RemoteClient, as_completed
from dspex.errors import BrokerUnavailable, NoAnswer
from tests.rabbitmqctl import rabbitmqctl
from tests.virtual_hosts import RabbitMQWithHosts
from tests.waiting import wait_until
from workers.brokers import amqp

pytestmark = pytest.mark.integration

INPUTS = {"question": "?"}
PROGRAM = uuid4()


async def _async(url: str, verb: str, *arguments: Any) -> None:
    async with AsyncClient.connect(url, source="/tests") as client:
        await getattr(client, verb)(*arguments, timeout=1)


VERBS: dict[str, Callable[[RemoteClient, str], object]] = {
    "execute": lambda client, _: client.execute_program(PROGRAM, INPUTS, timeout=1),
    "execute, unchecked": lambda client, _: client.execute_program(PROGRAM, INPUTS, timeout=1, validate=False),
    "submit": lambda client, _: client.submit_program(PROGRAM, INPUTS, timeout=1),
    "start": lambda client, _: client.start_program(PROGRAM, INPUTS, timeout=1),
    "initialize": lambda client, _: client.initialize_program(PROGRAM, timeout=1),
    "quick": lambda client, _: client.quick_execute("question -> answer", INPUTS, timeout=1),
    "async execute": lambda _, url: asyncio.run(_async(url, "execute_program", PROGRAM, INPUTS)),
    "async submit": lambda _, url: asyncio.run(_async(url, "submit_program", PROGRAM, INPUTS)),
    "async start": lambda _, url: asyncio.run(_async(url, "start_program", PROGRAM, INPUTS)),
    "async initialize": lambda _, url: asyncio.run(_async(url, "initialize_program", PROGRAM)),
    "async quick": lambda _, url: asyncio.run(_async(url, "quick_execute", "question -> answer", INPUTS)),
}


@pytest.fixture
def client_of(own_amqp_url: str) -> Any:
    amqp.check(own_amqp_url)
    with RemoteClient(own_amqp_url, source="/tests") as client:  # 30 s where a verb does not say
        yield client, own_amqp_url


@pytest.mark.parametrize("verb", VERBS)
def test_no_worker_runs(client_of: tuple[RemoteClient, str], verb: str) -> None:
    client, url = client_of
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        VERBS[verb](client, url)
    assert time.monotonic() - began < 10


def _ask_in_vain(client: RemoteClient) -> None:
    with suppress(NoAnswer, BrokerUnavailable):
        client.signature_of(PROGRAM)


def test_threads_that_wait_for_the_same_signature_have_each_its_own_time(client_of: tuple[RemoteClient, str]) -> None:
    client, _ = client_of
    patient = threading.Thread(target=_ask_in_vain, args=(client,))
    client.timeout = 60
    patient.start()
    wait_until(lambda: bool(client._signatures._asked), "it is asked for")
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        client.execute_program(PROGRAM, INPUTS, timeout=1)
    assert time.monotonic() - began < 10
    client.close()  # what is waited for fails
    patient.join(10)
    assert not patient.is_alive()


def _ask_in_child(client: RemoteClient) -> None:
    client.timeout = 1
    with pytest.raises(NoAnswer):
        client.execute_program(PROGRAM, INPUTS)

    async def main() -> None:
        with pytest.raises(NoAnswer):
            await AsyncClient(client).signature_of(PROGRAM)

    asyncio.run(main())


def test_a_child_that_is_forked_while_its_parent_asks_for_a_signature(client_of: tuple[RemoteClient, str]) -> None:
    client, _ = client_of
    asking = threading.Thread(target=_ask_in_vain, args=(client,))
    client.timeout = 10
    asking.start()
    wait_until(lambda: bool(client._signatures._asked), "it is asked for")
    child = multiprocessing.get_context("fork").Process(target=_ask_in_child, args=(client,))
    child.start()
    child.join(30)
    ended = child.exitcode
    child.kill()
    asking.join(30)
    assert ended == 0


def test_of_what_was_never_stored_it_is_not_said_that_it_goes_on(
    rabbitmq_server: Callable[[], RabbitMQWithHosts],
) -> None:
    server = rabbitmq_server()
    amqp.check(server.url)
    with RemoteClient(server.url, source="/tests", validate=False) as client:
        first = client.submit_program(PROGRAM, INPUTS)
        with pytest.raises(NoAnswer, match="It goes on"):
            first.result(timeout=0.1)
        rabbitmqctl(server, "set_vm_memory_high_watermark", "0.00001")
        try:
            with pytest.raises(BrokerUnavailable, match="alarm") as never:
                client.execute_program(PROGRAM, INPUTS, timeout=2)
            assert "goes on" not in str(never.value)

            async def main() -> None:
                with pytest.raises(BrokerUnavailable, match="alarm"):
                    await AsyncClient(client).execute_program(PROGRAM, INPUTS, timeout=2)
                with pytest.raises(BrokerUnavailable, match="alarm"):
                    await (await AsyncClient(client).start_program(PROGRAM, INPUTS, timeout=60)).result(timeout=0.5)

            asyncio.run(main())
            later = client.start_program(PROGRAM, INPUTS, timeout=60)
            with pytest.raises(BrokerUnavailable, match=r"not known to be stored.*alarm"):
                later.result(timeout=0.5)
            with pytest.raises(NoAnswer, match=r"2 of 2 .*but for 1 whose commands are not known to be stored"):
                list(as_completed([first, later], timeout=0.2))
        finally:
            rabbitmqctl(server, "set_vm_memory_high_watermark", "0.4")
        later.pending.published.result(60)
        with pytest.raises(NoAnswer, match="It goes on"):
            later.result(timeout=0.1)
