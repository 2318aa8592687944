"""Rows 3 and 4: the broker is killed while messages are published, and while jobs run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from uuid import UUID

from deploy.local_servers import RabbitMQServer
from dspex.amqp.topology import EXECUTIONS_QUEUE
from tests.faults.deployment import FaultDeployment
from tests.waiting import wait_until
from workers.brokers.amqp import consumers

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_killed_while_messages_are_published(
    deployment: FaultDeployment, rabbitmq: RabbitMQServer, passed: Passed, sized: Sized
) -> None:
    """What was confirmed is there, also after a second kill: it was on disk."""
    number = sized(2_000, 10_000)
    submitted: dict[UUID, Future[None]] = {}

    def publish() -> None:
        for _ in range(number):
            submitted.update(deployment.submit())

    publishing = threading.Thread(target=publish)
    publishing.start()
    wait_until(lambda: len(deployment.confirmed) > number // 10, "a tenth is confirmed", 60)
    rabbitmq.kill()
    before = len(deployment.confirmed)
    rabbitmq.start()
    publishing.join(100)
    for future in submitted.values():
        future.result(100)
    assert 0 < before < number
    rabbitmq.kill()
    rabbitmq.start()
    deployment.work(threads=16)
    passed(3, "kill -9 the broker during publishes", number, deployment.judge(120), f"confirmed before: {before}")


def test_killed_while_jobs_run(
    deployment: FaultDeployment, rabbitmq: RabbitMQServer, passed: Passed, sized: Sized
) -> None:
    kills, slowest = sized(1, 10), 0.0
    for _ in range(2):
        deployment.work(threads=110, prefetch=110, lease_seconds=5)
    for kill in range(kills):
        # Whoever is back first would read ahead all that the other could run.
        deployment.wait(lambda: consumers(deployment.broker_url, EXECUTIONS_QUEUE) == 2, "both consume")
        ids = deployment.send(200, gate=f"kill {kill}")
        deployment.wait(lambda ids=ids: deployment.running(ids) == 200, "200 executions run")  # type: ignore[misc]
        rabbitmq.kill()
        rabbitmq.start()
        there = time.monotonic()
        deployment.wait_until_ended(deployment.send(20))
        slowest = max(slowest, time.monotonic() - there)
        deployment.history.open_gate(f"kill {kill}")
        deployment.wait_until_ended()
    verdict = deployment.judge(120)
    passed(4, "kill -9 the broker with 200 in flight", kills, verdict, f"resumed in {slowest:.1f} s")
    assert slowest < 15
    assert set(deployment.history.count("call").values()) == {1}, "an execution was run twice"
