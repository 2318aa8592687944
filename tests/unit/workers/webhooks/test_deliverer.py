"""Webhooks from end to end in one process: an execution ends, and a receiver hears of it, whatever it does."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from adapters.port import Outcome
from dspex import ExecuteProgram, ExecutionCompleted, ExecutionFailed, MessageRejected, uuid7
from dspex.contract.callback import Callback
from dspex.contract.envelope import Envelope
from dspex.contract.events import ExecutionCancelled, ExecutionEnded, WebhookDisabled
from dspex.contract.results import DeliveryView
from dspex.contract.status import DeliveryStatus
from dspex.errors import DspexError
from dspex.webhooks import new_secret, verify
from store.column_types import database_now
from store.tables import executions, webhook_endpoints
from tests.unit.system import System
from tests.webhook_receiver import SILENCE, Answer, Request, WebhookReceiver
from workers.local import LocalClient
from workers.webhooks.delivery import REPLACED

SECRET, OTHER = new_secret(), new_secret()
QUICK = (0.0, *(0.05,) * 40)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("B_WEBHOOK_SECRET", OTHER)
    monkeypatch.setenv("A_WEBHOOK_TOKEN", "Bearer abc")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


class Webhooks:
    """A system whose executions are pushed to a receiver."""

    def __init__(self, system: System, receiver: WebhookReceiver) -> None:
        self.system = system
        self.receiver = receiver
        self.client = LocalClient(system.app)
        self.program_id = system.program(adapter="scripted")

    def callback(self, **more: Any) -> Callback:
        return Callback.model_validate({"url": self.receiver.url(), "secret": "A_WEBHOOK_SECRET"} | more)

    def execute(self, callback: Callback | None, question: str = "?") -> UUID:
        execution_id = uuid7()
        self.system.send(
            ExecuteProgram(
                execution_id=execution_id,
                program_id=self.program_id,
                inputs={"question": question},
                callback=callback,
            )
        )
        return execution_id

    def delivery(self, execution_id: UUID) -> DeliveryView:
        """The only one of an execution, with its attempts."""
        self.system.wait(lambda: self.client.list_deliveries(execution_id=execution_id).items)
        (found,) = self.client.list_deliveries(execution_id=execution_id).items
        return self.client.get_delivery(found.delivery_id)

    def settled(self, execution_id: UUID, status: DeliveryStatus = DeliveryStatus.DELIVERED) -> DeliveryView:
        """That one, once it has come to this."""
        self.system.wait(lambda: self.delivery(execution_id).status is status)
        return self.delivery(execution_id)

    def received(self, execution_id: UUID) -> list[Envelope[Any]]:
        """What the receiver has verified of an execution."""
        read = [verify(request.body, request.headers, [SECRET, OTHER]) for request in list(self.receiver.requests)]
        return [envelope for envelope in read if envelope.subject == str(execution_id)]


Make = Callable[..., Webhooks]


@pytest.fixture
def make(start: Callable[..., System], receiver: WebhookReceiver) -> Make:
    def make(**settings: Any) -> Webhooks:
        given: dict[str, Any] = {
            "webhook_hosts": (f"127.0.0.1:{receiver.port}",),
            "webhook_retries": QUICK,
            "webhook_threads": 4,
        }
        return Webhooks(start(**given | settings), receiver)

    return make


def answering(*statuses: int, headers: dict[str, str] | None = None) -> Callable[[Request], Answer]:
    """Answers with these one after the other, and then with 200."""
    answers = iter(statuses)
    return lambda _: Answer(next(answers, 200), headers or {})


class TestEvents:
    def test_the_end_comes_as_the_event_of_the_broker(self, make: Make) -> None:
        webhooks = make()
        callback = webhooks.callback(headers={"Authorization": "A_WEBHOOK_TOKEN"})
        execution_id = webhooks.execute(callback)
        delivery = webhooks.settled(execution_id)
        (pushed,) = webhooks.received(execution_id)
        published = webhooks.system.event(ExecutionCompleted, execution_id)
        assert pushed.model_copy(update={"time": None}) == published.model_copy(update={"time": None})
        assert pushed.id == delivery.event_id
        row = webhooks.client.get_execution(execution_id)
        assert (pushed.time, row.callback) == (row.finished_at, callback)
        (request,) = webhooks.receiver.requests
        assert request.headers["authorization"] == "Bearer abc"
        assert request.headers["webhook-id"] == published.id
        (attempt,) = delivery.log
        assert (attempt.outcome, attempt.http_status, delivery.attempts) == ("delivered", 200, 1)

    def test_failed_and_cancelled_ones_too_where_they_are_wanted(self, make: Make) -> None:
        webhooks = make()
        failed = webhooks.client.execute_program(
            webhooks.program_id, {}, validate=False, callback=webhooks.callback()
        ).execution_id
        webhooks.settled(failed)
        (pushed,) = webhooks.received(failed)
        assert isinstance(pushed.data, ExecutionFailed)
        unwanted = webhooks.execute(webhooks.callback(events=("failed",)))
        webhooks.system.ended(unwanted)
        running, go_on = threading.Event(), threading.Event()

        def run(_: Any) -> Outcome:
            running.set()
            go_on.wait(30)
            return Outcome({"answer": "too late"})

        webhooks.system.scripted.run = run
        cancelled = webhooks.execute(webhooks.callback())
        assert running.wait(30)
        webhooks.client.cancel_execution(cancelled)
        go_on.set()
        webhooks.settled(cancelled)
        (pushed,) = webhooks.received(cancelled)
        assert isinstance(pushed.data, ExecutionCancelled)
        assert webhooks.client.list_deliveries(execution_id=unwanted).items == ()

    def test_a_large_one_and_one_that_is_asked_for_so_come_as_references(self, make: Make) -> None:
        webhooks = make()
        large = webhooks.execute(webhooks.callback(), "x" * 30_000)
        thin = webhooks.execute(webhooks.callback(thin=True))
        for execution_id in (large, thin):
            webhooks.settled(execution_id)
            (pushed,) = webhooks.received(execution_id)
            assert isinstance(pushed.data, ExecutionEnded)
            assert pushed.data.status == "completed"
            assert pushed.id == webhooks.system.event(ExecutionCompleted, execution_id).id

    def test_a_programs_callback_and_an_endpoint_of_the_tenant(self, make: Make) -> None:
        webhooks = make()
        endpoint = webhooks.client.register_endpoint(webhooks.callback(url=webhooks.receiver.url(path="/all")))
        program = webhooks.client.create_program(
            "p",
            "question -> answer",
            adapter_type="mock",
            callback=webhooks.callback(url=webhooks.receiver.url(path="/p")),
        )
        webhooks.client.initialize_program(program.program_id)
        webhooks.client.execute_program(program.program_id, {"question": "?"})
        webhooks.system.wait(lambda: len(webhooks.receiver.requests) == 2)
        assert {request.path for request in webhooks.receiver.requests} == {"/all", "/p"}
        assert len({request.headers["webhook-id"] for request in webhooks.receiver.requests}) == 1
        webhooks.client.delete_endpoint(endpoint.endpoint_id)
        webhooks.client.update_program(program.program_id, program.configuration, remove_callback=True)
        execution = webhooks.client.execute_program(program.program_id, {"question": "??"})
        assert webhooks.client.list_deliveries(execution_id=execution.execution_id).items == ()


class TestRefusals:
    """Who asks is told at once, and nothing is sent."""

    @pytest.mark.parametrize(
        ("url", "code"),
        [("http://receiver.example/", "forbidden_address"), ("https://169.254.169.254/", "forbidden_address")],
    )
    def test_where_webhooks_may_not_go(self, make: Make, url: str, code: str) -> None:
        webhooks = make()
        callback = Callback(url=url, secret="A_WEBHOOK_SECRET")
        execution_id = webhooks.execute(callback)
        rejected = webhooks.system.event(MessageRejected)
        assert rejected.data.error.code == code
        assert webhooks.system.row(execution_id) is None
        for ask in (
            lambda: webhooks.client.register_endpoint(callback),
            lambda: webhooks.client.create_program("p", "q -> a", adapter_type="mock", callback=callback),
            lambda: webhooks.client.execute_program(webhooks.program_id, {"question": "?"}, callback=callback),
        ):
            with pytest.raises(DspexError) as raised:
                ask()
            assert raised.value.code == code

    def test_secrets_that_the_tenant_was_not_given(self, start: Callable[..., System]) -> None:
        system = start(tenancy=True, webhook_secrets={"default": ("A_WEBHOOK_SECRET",)})
        client = LocalClient(system.app)
        given: dict[str, Any] = {"url": "https://receiver.example/", "secret": "A_WEBHOOK_SECRET"}
        endpoint = client.register_endpoint(given)
        for more in ({"secret": "B_WEBHOOK_SECRET"}, {"headers": {"X-Key": "A_WEBHOOK_TOKEN"}}):
            with pytest.raises(DspexError, match="DSPEX_WEBHOOK_SECRETS") as raised:
                client.register_endpoint(given | more)
            assert raised.value.code == "denied"
        with pytest.raises(DspexError, match="'default' may not use 'B_WEBHOOK_SECRET'"):
            client.rotate_secret(endpoint.endpoint_id, "B_WEBHOOK_SECRET")

    def test_what_signs_is_never_sent(self, make: Make) -> None:
        webhooks = make()
        for more in ({"headers": {"X-Loot": "A_WEBHOOK_SECRET"}}, {"secret": "A_WEBHOOK_TOKEN"}):
            callback = webhooks.callback(**more)
            execution_id = webhooks.execute(callback)
            assert webhooks.system.event(MessageRejected).data.error.code == "denied"
            assert webhooks.system.row(execution_id) is None
            for ask in (
                lambda c=callback: webhooks.client.register_endpoint(c),
                lambda c=callback: webhooks.client.create_program("p", "q -> a", adapter_type="mock", callback=c),
            ):
                with pytest.raises(DspexError, match=r"signs, and is never sent|is one that is sent") as raised:
                    ask()
                assert raised.value.code == "denied"
        endpoint = webhooks.client.register_endpoint(webhooks.callback())
        with pytest.raises(DspexError, match="is one that is sent"):
            webhooks.client.rotate_secret(endpoint.endpoint_id, "A_WEBHOOK_TOKEN")
        assert not webhooks.receiver.requests

    def test_what_was_taken_is_run_whatever_is_set_by_now(self, start: Callable[..., System], make: Make) -> None:
        webhooks = make()
        execution_id, callback = uuid7(), webhooks.callback()
        program_id = webhooks.program_id
        asked = webhooks.system.request(program_id, execution_id, question="?")
        webhooks.system.lose(replace(asked, callback=callback))
        webhooks.system.stop()
        after = start(webhook_hosts=(), webhook_retries=QUICK)
        assert after.ended(execution_id).status == "completed"
        after.wait(lambda: LocalClient(after.app).list_deliveries(execution_id=execution_id).items[0].reason)
        (delivery,) = LocalClient(after.app).list_deliveries(execution_id=execution_id).items
        assert "DSPEX_WEBHOOK_HOSTS" in (delivery.reason or "")
        assert after.rejected() == []


class TestTrouble:
    def test_a_receiver_that_is_down_for_a_while(self, make: Make) -> None:
        webhooks = make()
        webhooks.receiver.script = answering(500, 500, 302, headers={"location": "http://127.0.0.1:1/"})
        execution_id = webhooks.execute(webhooks.callback())
        delivery = webhooks.settled(execution_id)
        assert [attempt.http_status for attempt in delivery.log] == [500, 500, 302, 200]
        assert len({request.headers["webhook-id"] for request in webhooks.receiver.requests}) == 1
        endpoint = webhooks.client.get_endpoint(delivery.endpoint_id)
        assert endpoint.failing_since is None

    def test_a_secret_that_is_not_there_is_said_and_may_come(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        webhooks = make(webhook_retries=(0.0,))
        execution_id = webhooks.execute(webhooks.callback(secret="NO_WEBHOOK_SECRET"))
        delivery = webhooks.settled(execution_id, DeliveryStatus.FAILED)
        assert [attempt.outcome for attempt in delivery.log] == ["refused"]
        assert "NO_WEBHOOK_SECRET" in (delivery.reason or "")
        assert webhooks.receiver.requests == []

    def test_410_disables_the_endpoint_and_operators_are_told(self, make: Make) -> None:
        webhooks = make()
        webhooks.receiver.script = answering(410)
        execution_id = webhooks.execute(webhooks.callback())
        delivery = webhooks.settled(execution_id, DeliveryStatus.FAILED)
        endpoint = webhooks.client.get_endpoint(delivery.endpoint_id)
        assert (endpoint.enabled, endpoint.disabled_reason) == (False, "it answered 410 Gone")
        told = webhooks.system.event(WebhookDisabled, endpoint.endpoint_id)
        assert (told.data.host, told.data.tenant) == (f"127.0.0.1:{webhooks.receiver.port}", "default")
        later = webhooks.execute(webhooks.callback())
        webhooks.settled(later, DeliveryStatus.FAILED)
        with pytest.raises(DspexError, match="is disabled"):
            webhooks.client.replay_deliveries(delivery.delivery_id)
        webhooks.client.enable_endpoint(endpoint.endpoint_id)
        assert webhooks.client.replay_deliveries(endpoint_id=endpoint.endpoint_id) == 2
        for each in (execution_id, later):
            webhooks.settled(each)
        assert len(webhooks.system.events_of(WebhookDisabled)) == 1

    def test_days_of_failure_disable_it(self, make: Make) -> None:
        webhooks = make()
        webhooks.receiver.script = lambda _: Answer(500)
        execution_id = webhooks.execute(webhooks.callback())
        webhooks.system.wait(lambda: webhooks.delivery(execution_id).attempts)
        with webhooks.system.app.engine.begin() as connection:
            connection.execute(update(webhook_endpoints).values(failing_since=database_now(-5 * 86_400 - 60)))
        delivery = webhooks.settled(execution_id, DeliveryStatus.FAILED)
        endpoint = webhooks.client.get_endpoint(delivery.endpoint_id)
        assert endpoint.disabled_reason == "it has failed for 5.0 days"
        assert webhooks.system.event(WebhookDisabled, endpoint.endpoint_id).data.reason == "it has failed for 5.0 days"

    def test_the_schedule_ends_and_a_replay_begins_it_anew(self, make: Make) -> None:
        webhooks = make(webhook_retries=(0.0, 0.05))
        webhooks.receiver.script = answering(500, 500)
        execution_id = webhooks.execute(webhooks.callback())
        failed = webhooks.settled(execution_id, DeliveryStatus.FAILED)
        assert (failed.attempts, failed.reason) == (2, "it answered with 500")
        assert webhooks.client.replay_deliveries(failed.delivery_id) == 1
        delivery = webhooks.settled(execution_id)
        assert [attempt.number for attempt in delivery.log] == [1, 2, 3]
        assert webhooks.client.replay_deliveries(since=delivery.inserted_at) == 0
        assert webhooks.client.replay_deliveries(since=delivery.inserted_at, status=DeliveryStatus.DELIVERED) == 1
        webhooks.system.wait(lambda: len(webhooks.receiver.requests) == 4)
        assert len({request.headers["webhook-id"] for request in webhooks.receiver.requests}) == 1

    def test_who_is_throttled_waits_as_long_as_it_was_asked_to(self, make: Make) -> None:
        webhooks = make()
        webhooks.receiver.script = answering(429, headers={"retry-after": "3600"})
        execution_id = webhooks.execute(webhooks.callback())
        webhooks.system.wait(lambda: webhooks.delivery(execution_id).attempts)
        delivery = webhooks.delivery(execution_id)
        (attempt,) = delivery.log
        assert (delivery.status, attempt.outcome) == ("pending", "throttled")
        assert delivery.due_at is not None
        assert (delivery.due_at - attempt.at).total_seconds() >= 3599

    def test_of_an_execution_that_is_run_again_the_old_end_is_not_sent(
        self, start: Callable[..., System], make: Make
    ) -> None:
        webhooks = make(webhook_threads=0)
        execution_id = webhooks.execute(webhooks.callback())
        webhooks.system.ended(execution_id)
        webhooks.system.stop()
        with webhooks.system.app.engine.begin() as connection:
            # As a replay of the execution leaves it.
            connection.execute(update(executions).values(lock_version=executions.c.lock_version + 1))
        start()
        delivery = webhooks.settled(execution_id, DeliveryStatus.FAILED)
        assert (delivery.attempts, delivery.reason) == (0, REPLACED)
        assert webhooks.receiver.requests == []

    def test_dead_places_are_stepped_over_and_lose_nothing(self, make: Make, receiver: WebhookReceiver) -> None:
        with WebhookReceiver() as dead:
            dead.script = lambda _: SILENCE
            hosts = tuple(f"127.0.0.1:{port}" for port in (receiver.port, dead.port))
            webhooks = make(webhook_hosts=hosts, webhook_threads=8, webhook_timeout=1)
            lost = [webhooks.execute(webhooks.callback(url=dead.url())) for _ in range(30)]
            living = [webhooks.execute(webhooks.callback()) for _ in range(30)]
            for execution_id in living:
                webhooks.settled(execution_id)
            webhooks.system.wait(lambda: len(dead.requests) >= 5)
            waiting = [webhooks.delivery(execution_id) for execution_id in lost]
            assert {delivery.status for delivery in waiting} == {DeliveryStatus.PENDING}
            # The circuit is open: most were never tried.
            assert sum(delivery.attempts for delivery in waiting) < len(lost)


class TestRotation:
    def test_both_secrets_sign_and_then_one(self, make: Make) -> None:
        webhooks = make()
        endpoint = webhooks.client.register_endpoint(webhooks.callback())
        webhooks.client.rotate_secret(endpoint.endpoint_id, "B_WEBHOOK_SECRET", overlap=3600)
        webhooks.settled(webhooks.execute(None))
        (request,) = webhooks.receiver.requests
        for secret in (SECRET, OTHER):
            verify(request.body, request.headers, secret)
        webhooks.client.update_endpoint(endpoint.endpoint_id, webhooks.callback(secret="B_WEBHOOK_SECRET"))
        webhooks.settled(webhooks.execute(None, "again"))
        with pytest.raises(DspexError, match="webhook-signature"):
            verify(webhooks.receiver.requests[1].body, webhooks.receiver.requests[1].headers, SECRET)


class TestStopping:
    def test_what_is_being_sent_may_end(self, make: Make) -> None:
        webhooks = make()
        asked, go_on = threading.Event(), threading.Event()

        def script(_: Request) -> Answer:
            asked.set()
            go_on.wait(30)
            return Answer()

        webhooks.receiver.script = script
        execution_id = webhooks.execute(webhooks.callback())
        assert asked.wait(30)
        threading.Timer(0.2, go_on.set).start()
        webhooks.system.stop()
        assert webhooks.delivery(execution_id).status is DeliveryStatus.DELIVERED

    def test_the_rest_is_due_again_at_once(self, start: Callable[..., System], make: Make) -> None:
        webhooks = make()
        asked = threading.Event()

        def script(_: Request) -> Answer:
            asked.set()
            return SILENCE

        webhooks.receiver.script = script
        execution_id = webhooks.execute(webhooks.callback())
        assert asked.wait(30)
        webhooks.system.stop(0.1)
        webhooks.receiver.script = lambda _: Answer()
        after = start(webhook_hosts=(f"127.0.0.1:{webhooks.receiver.port}",))
        client = LocalClient(after.app)
        after.wait(lambda: client.list_deliveries(execution_id=execution_id).items[0].status == "delivered")
        assert len({request.headers["webhook-id"] for request in webhooks.receiver.requests}) == 1


def test_a_deliverer_never_loads_dspy_and_an_idle_one_no_http_client() -> None:
    heavy = "print({'dspy', 'litellm', 'httpcore2'} & set(sys.modules))"
    code = f"import sys, workers.cli.worker; {heavy}; import workers.webhooks.delivery; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "{'httpcore2'}"]
