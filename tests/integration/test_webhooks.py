"""Webhooks of `dspex worker` on RabbitMQ and PostgreSQL: a process of their own, which may die, and loses none."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pika
import pytest

from deploy.processes import Process, start_time
from dspex import Configuration, DspexError, ExecuteProgram, uuid7
from dspex.amqp.topology import EVENTS_EXCHANGE, event_key
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.contract.envelope import decode_event
from dspex.contract.events import WebhookDisabled
from dspex.contract.results import DeliveryView
from dspex.contract.status import DeliveryStatus
from dspex.producer import Producer
from dspex.webhooks import new_secret, verify
from tests import preloaded
from tests.waiting import wait_until
from tests.webhook_receiver import Answer, Request, WebhookReceiver

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PATIENCE = 90.0
SECRET = new_secret()


class Fleet:
    """A `dspex worker` with its deliverer, and a client."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: str) -> None:
        self.environment = environment
        self.log = log
        self.process = preloaded.start(["worker", "--threads", "8", *arguments], environment, log)
        self._root = Process(self.process.pid, start_time(self.process.pid) or 0, signal.SIGTERM)
        self.known: dict[int, Process] = {}
        self.wait_until_said("takes jobs")
        self.wait_until_said("sends webhooks")
        self.client = RemoteClient(environment["DSPEX_BROKER_URL"], source="/tests", timeout=PATIENCE)

    def said(self, text: str) -> int:
        return self.log.read_text(encoding="utf-8").count(text)

    def wait_until_said(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.said(text) >= times or self.process.poll() is not None, f"it says '{text}'", PATIENCE)
        assert self.said(text) >= times, self.log.read_text(encoding="utf-8")

    @property
    def deliverers(self) -> list[Process]:
        """The processes that deliver, of those that live now."""
        for member in self._root.family():
            self.known.setdefault(member.pid, member)
        return [
            process
            for process in self.known.values()
            if process.alive() and b"deliverer" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        ]

    def stop(self) -> int:
        self.client.close()
        self.deliverers  # noqa: B018  noted, to be sure that all of them end
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.deliverers  # noqa: B018  noted, to be ended
        for process in (self._root, *self.known.values()):
            process.send(signal.SIGKILL)
        self.process.wait(PATIENCE)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def environment(own_amqp_url: str, migrated_database_url: str, receiver: WebhookReceiver) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("DSPEX_")}
    return bare | {
        "DSPEX_BROKER_URL": own_amqp_url,
        "DSPEX_DATABASE_URL": migrated_database_url,
        "DSPEX_WEBHOOK_HOSTS": f"127.0.0.1:{receiver.port}",
        "DSPEX_WEBHOOK_RETRIES": "0" + ",0.2" * 20,
        "DSPEX_WEBHOOK_TIMEOUT": "1",
        "DSPEX_WEBHOOK_THREADS": "4",
        "DSPEX_LEASE_SECONDS": "3",
        "A_WEBHOOK_SECRET": SECRET,
    }


@pytest.fixture
def fleet(environment: dict[str, str], tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(environment, tmp_path / "worker.log")
    yield fleet
    fleet.kill()


def callback(receiver: WebhookReceiver, **more: Any) -> Callback:
    return Callback.model_validate({"url": receiver.url(), "secret": "A_WEBHOOK_SECRET"} | more)


def program(client: RemoteClient) -> UUID:
    made = client.create_program("p", "question -> answer", adapter_type="mock", configuration=Configuration())
    return client.initialize_program(made.program_id).program_id


def subject_of(request: Request) -> str:
    """The execution that a webhook is about, if it is ours."""
    subject = verify(request.body, request.headers, SECRET).subject
    assert subject is not None
    assert request.headers["webhook-id"].startswith(subject)
    return subject


def delivery(client: RemoteClient, execution_id: UUID) -> DeliveryView:
    (found,) = client.list_deliveries(execution_id=execution_id).items
    return client.get_delivery(found.delivery_id)


class TestProcesses:
    def test_one_process_has_a_deliverer_beside_it_and_both_drain(
        self, fleet: Fleet, receiver: WebhookReceiver
    ) -> None:
        (deliverer,) = fleet.deliverers
        execution = fleet.client.execute_program(program(fleet.client), {"question": "?"}, callback=callback(receiver))
        wait_until(lambda: len(receiver.requests) == 1, "it is delivered", PATIENCE)
        assert subject_of(receiver.requests[0]) == str(execution.execution_id)
        assert fleet.stop() == 0
        assert fleet.said("The deliverer has stopped.") == 1
        assert not deliverer.alive()
        assert fleet.said("Traceback") == 0

    def test_many_processes_have_one_and_0_threads_none(self, environment: dict[str, str], tmp_path: Path) -> None:
        fleet = Fleet(environment, tmp_path / "two.log", "--processes", "2")
        try:
            assert len(fleet.deliverers) == 1
            assert fleet.stop() == 0
            assert fleet.deliverers == []
        finally:
            fleet.kill()
        none = environment | {"DSPEX_WEBHOOK_THREADS": "0"}
        done = preloaded.run(["deliverer"], tmp_path, none, "", PATIENCE)
        assert done.returncode == 2
        assert "DSPEX_WEBHOOK_THREADS" in done.stderr

    def test_one_whose_supervisor_is_killed_drains(self, fleet: Fleet) -> None:
        (deliverer,) = fleet.deliverers
        fleet.process.kill()
        fleet.process.wait(PATIENCE)
        wait_until(lambda: not deliverer.alive(), "it has ended", PATIENCE)
        assert fleet.said("The supervisor is gone") == 1


class TestDeath:
    def test_killed_between_the_post_and_the_commit_it_is_sent_again_under_the_same_id(
        self, fleet: Fleet, receiver: WebhookReceiver
    ) -> None:
        (deliverer,) = fleet.deliverers
        killed = threading.Event()

        def script(_: Request) -> Answer:
            if not killed.is_set():
                killed.set()
                deliverer.send(signal.SIGKILL)
            return Answer()

        receiver.script = script
        execution = fleet.client.execute_program(program(fleet.client), {"question": "?"}, callback=callback(receiver))
        wait_until(lambda: len(receiver.requests) == 2, "it is delivered twice", PATIENCE)
        assert killed.is_set()
        fleet.wait_until_said("it is replaced")
        first, second = receiver.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        assert subject_of(second) == str(execution.execution_id)
        wait_until(
            lambda: delivery(fleet.client, execution.execution_id).status is DeliveryStatus.DELIVERED, "it is settled"
        )
        # The attempt that nobody lived to write down is not in the log.
        assert len(delivery(fleet.client, execution.execution_id).log) == 1

    def test_while_receiver_and_deliverer_go_and_come_back_none_is_lost(
        self, fleet: Fleet, receiver: WebhookReceiver
    ) -> None:
        program_id = program(fleet.client)
        down = threading.Event()
        receiver.script = lambda _: Answer(503 if down.is_set() else 200)
        ids = [uuid7() for _ in range(300)]
        with Producer.connect(fleet.environment["DSPEX_BROKER_URL"], source="/tests") as producer:
            producer.send_all(
                ExecuteProgram(
                    execution_id=id_, program_id=program_id, inputs={"question": "?"}, callback=callback(receiver)
                )
                for id_ in ids[:150]
            )
            wait_until(lambda: len(receiver.requests) >= 30, "some are delivered", PATIENCE)
            down.set()
            producer.send_all(
                ExecuteProgram(
                    execution_id=id_, program_id=program_id, inputs={"question": "?"}, callback=callback(receiver)
                )
                for id_ in ids[150:]
            )
            (deliverer,) = fleet.deliverers
            deliverer.send(signal.SIGKILL)
            fleet.wait_until_said("sends webhooks", 2)
            down.clear()

        def answered() -> Counter[str]:
            return Counter(subject_of(request) for request in list(receiver.requests))

        endpoint_id = fleet.client.list_endpoints(registered=False).items[0].endpoint_id

        def settled() -> bool:
            pending = fleet.client.list_deliveries(
                endpoint_id=endpoint_id, status=DeliveryStatus.PENDING, limit=1
            ).items
            return not pending and set(answered()) == set(map(str, ids))

        wait_until(settled, "all are delivered", 200)
        listed: list[DeliveryView] = []
        cursor = None
        while True:
            page = fleet.client.list_deliveries(endpoint_id=endpoint_id, limit=100, cursor=cursor)
            listed += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert Counter(str(each.execution_id) for each in listed) == Counter(map(str, ids))
        by_id: dict[str, set[str]] = {}
        for request in receiver.requests:
            by_id.setdefault(subject_of(request), set()).add(request.headers["webhook-id"])
        assert {len(webhook_ids) for webhook_ids in by_id.values()} == {1}


class TestBroker:
    def test_a_producer_is_told_at_once_of_a_callback_that_cannot_be(self, fleet: Fleet) -> None:
        program_id = program(fleet.client)
        for url in ("http://169.254.169.254/", "https://127.0.0.1/", "https://receiver.example:22/"):
            asked = Callback(url=url, secret="A_WEBHOOK_SECRET")
            with pytest.raises(DspexError) as raised:
                fleet.client.execute_program(program_id, {"question": "?"}, callback=asked)
            assert raised.value.code == "forbidden_address"
        assert fleet.client.list_executions(program_id=program_id).items == ()

    def test_operators_hear_of_an_endpoint_that_is_gone(self, fleet: Fleet, receiver: WebhookReceiver) -> None:
        with pika.BlockingConnection(pika.URLParameters(fleet.environment["DSPEX_BROKER_URL"])) as connection:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, EVENTS_EXCHANGE, event_key("default", WebhookDisabled.type))
            receiver.script = lambda _: Answer(410)
            endpoint = fleet.client.register_endpoint(callback(receiver))
            fleet.client.execute_program(program(fleet.client), {"question": "?"})
            bodies: list[bytes] = []

            def told() -> bool:
                body = channel.basic_get(queue, auto_ack=True)[2]
                if body is not None:
                    bodies.append(body)
                return bool(bodies)

            wait_until(told, "the event comes", PATIENCE)
        event = decode_event(bodies[0]).data
        assert isinstance(event, WebhookDisabled)
        assert (event.endpoint_id, event.reason) == (endpoint.endpoint_id, "it answered 410 Gone")
        disabled = fleet.client.get_endpoint(endpoint.endpoint_id)
        assert not disabled.enabled
        receiver.script = lambda _: Answer()
        fleet.client.enable_endpoint(endpoint.endpoint_id)
        assert fleet.client.replay_deliveries(endpoint_id=endpoint.endpoint_id) == 1
        wait_until(lambda: len(receiver.requests) == 2, "it is delivered", PATIENCE)
