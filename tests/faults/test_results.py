"""Row 30: results by reply queue and by webhook at once, while the broker, a worker and the receiver fail."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

import pytest

from deploy.local_servers import RabbitMQServer
from dspex import DspexError, ExecutionStatus, uuid7
from dspex.amqp.topology import EVENTS_EXCHANGE, event_key
from dspex.client.remote import Handle, RemoteClient
from dspex.contract.callback import Callback
from dspex.webhooks import new_secret, verify
from tests.faults.deployment import FaultDeployment, Worker
from tests.waiting import wait_until
from tests.webhook_receiver import SILENCE, Answer, Request, WebhookReceiver

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

SECRET: Final = new_secret()
PATIENCE: Final = 300.0
"""Seconds: a deliverer leaves a receiver that fails alone for 30 s, and for longer where it fails again."""


class Inbox:
    """The script of the receiver: it checks what comes and takes it, unless it is down."""

    def __init__(self) -> None:
        self.down = threading.Event()
        self.tries: dict[str, list[str]] = defaultdict(list)
        """The `webhook-id` of every try, by execution."""
        self.taken: set[str] = set()
        """The executions whose webhook was answered with 2xx."""
        self.turned_away = 0
        self.wrong: list[str] = []
        """Why a webhook could not be read."""
        self._lock = threading.Lock()
        self._misdeeds = itertools.cycle([SILENCE, Answer(reset=True)])

    def __call__(self, request: Request) -> Answer:
        """Answer: while it is down, nothing at all and a reset in turns."""
        with self._lock:
            try:
                event = verify(request.body, request.headers, SECRET)
            except DspexError as error:
                self.wrong.append(error.message)
                return Answer(400)
            if event.id != request.headers["webhook-id"]:
                self.wrong.append(f"the body of {request.headers['webhook-id']} has the id {event.id}")
            execution = str(event.data.execution_id)
            self.tries[execution].append(request.headers["webhook-id"])
            if self.down.is_set():
                self.turned_away += 1
                return next(self._misdeeds)
            self.taken.add(execution)
            return Answer(204)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


def test_results_come_by_reply_queue_and_by_webhook(
    deployment: FaultDeployment, rabbitmq: RabbitMQServer, receiver: WebhookReceiver, passed: Passed, sized: Sized
) -> None:
    """Each at least once by both ways, under the id of the end's event on every try."""
    number, threads, events, inbox = sized(120, 1_000), sized(4, 16), f"faults.results.{uuid7()}", Inbox()
    receiver.script = inbox
    with deployment.channel() as channel:
        channel.queue_declare(events, durable=True)
        channel.queue_bind(events, EVENTS_EXCHANGE, event_key("*", "dspex.execution.#"))
    first, _ = [_work(deployment, receiver, threads) for _ in range(2)]
    handles: list[Handle] = []

    with RemoteClient(deployment.broker_url, source="/faults", timeout=PATIENCE) as client:

        def submit(count: int) -> None:
            callback = Callback(url=receiver.url(), secret="FAULTS_WEBHOOK_SECRET")
            handles.extend(
                client.start_program(deployment.program_id, {"sleep": 0.6}, callback=callback) for _ in range(count)
            )

        submit(number // 2)
        wait_until(lambda: len(inbox.taken) >= 20, "the first webhooks are taken", PATIENCE)
        inbox.down.set()
        submitting = threading.Thread(target=submit, args=(number - number // 2,))
        submitting.start()
        wait_until(lambda: len(handles) > number // 2, "the second half is being submitted", PATIENCE)
        rabbitmq.kill()
        before = sum(handle.done() for handle in handles)
        rabbitmq.start()
        submitting.join(PATIENCE)
        ids = [handle.execution_id for handle in handles]
        deployment.wait(lambda: deployment.running(ids) > threads, "both workers run executions", PATIENCE)
        first.kill()
        _work(deployment, receiver, threads)
        wait_until(lambda: inbox.turned_away >= 5, "some webhooks are turned away", PATIENCE)
        inbox.down.clear()
        deadline = time.monotonic() + PATIENCE
        lost = [problem for handle in handles if (problem := _problem(handle, deadline))]

    deployment.confirmed.update(ids)
    verdict = deployment.judge(PATIENCE)
    wanted = {str(id_) for id_ in ids}
    _wait_for_webhooks(deployment, inbox, wanted)
    ended = _event_ids(deployment, events)
    tries = {execution: list(inbox.tries[execution]) for execution in wanted}
    distinct = {webhook_id for of_one in tries.values() for webhook_id in of_one}
    unheard = wanted - inbox.taken
    calls = deployment.history.count("call")
    passed(
        30,
        "results by both ways: broker, worker, receiver fail",
        number,
        verdict,
        f"by reply queue: {number - len(lost)} (before the kill {before}), lost {len(lost)}; "
        f"by webhook: {len(inbox.taken)}, tries {sum(map(len, tries.values()))} (turned away {inbox.turned_away}), "
        f"distinct ids {len(distinct)}, lost {len(unheard)}; run again: {sum(turns > 1 for turns in calls.values())}",
    )
    assert len(wanted) == number
    assert before < number, "the broker was killed too late to matter"
    assert not lost
    assert not unheard
    assert not inbox.wrong
    assert inbox.tries.keys() == wanted
    # One id on every try, and the one that the event of the end has on the exchange.
    assert {execution: set(of_one) for execution, of_one in tries.items()} == ended
    assert len(distinct) == number
    delivered = "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'"
    assert deployment.scalar(delivered) == number


def _work(deployment: FaultDeployment, receiver: WebhookReceiver, threads: int) -> Worker:
    """A worker, with the deliverer that it starts beside it; both are ready."""
    worker = deployment.work(
        threads=threads,
        environment={"FAULTS_WEBHOOK_SECRET": SECRET},
        webhook_hosts=f"127.0.0.1:{receiver.port}",
        webhook_retries="0" + ",0.5" * 40,
        webhook_threads=16,
        webhook_timeout=1,
    )
    wait_until(lambda: "sends webhooks" in worker.log, "its deliverer sends webhooks", PATIENCE)
    return worker


def _problem(handle: Handle, deadline: float) -> str | None:
    """Why its result did not come by the deadline; None where it did."""
    try:
        execution = handle.execution(max(0.0, deadline - time.monotonic()))
    except DspexError as error:
        return f"{handle.execution_id}: {error.message}"
    return None if execution.status is ExecutionStatus.COMPLETED else f"{execution.execution_id}: {execution.status}"


def _wait_for_webhooks(deployment: FaultDeployment, inbox: Inbox, wanted: Collection[str]) -> None:
    """Until each is taken and settled. What is missing in the end is told by the figures."""
    pending = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'"
    with suppress(AssertionError):
        deployment.wait(
            lambda: inbox.taken.issuperset(wanted) and not deployment.scalar(pending), "all are taken", PATIENCE
        )


def _event_ids(deployment: FaultDeployment, queue: str) -> Mapping[str, set[str]]:
    """The ids of the events of each execution's end, as a listener on the exchange got them."""
    found: dict[str, set[str]] = defaultdict(set)
    with deployment.channel() as channel:
        while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
            event = json.loads(body)
            found[event["data"]["execution_id"]].add(event["id"])
        channel.queue_delete(queue)
    return found
