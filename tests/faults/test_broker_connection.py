"""Rows 5, 6, 17 and 25: the broker lives, and the connection to it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from deploy.local_servers import RabbitMQServer
from dspex.amqp.topology import EXECUTIONS_QUEUE
from tests.faults.deployment import FaultDeployment
from tests.faults.retrying import RETRIED, fail_while_refused
from tests.faults.stale_tags import cut_and_kill
from tests.rabbitmqctl import rabbitmqctl
from tests.tcp_proxy import TcpProxy

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_a_retry_while_the_broker_refuses(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    rounds = sized(1, 10)
    for _ in range(rounds):
        with TcpProxy(deployment.broker_url) as proxy:
            fail_while_refused(deployment, proxy)
            deployment.wait_until_ended()
            deployment.workers[-1].kill()
    deployment.work(threads=8)  # what the killed ones have not sent
    verdict = deployment.judge()
    assert deployment.count("attempt = 2 AND status = 'completed'", deployment.confirmed) == rounds * RETRIED
    passed(5, "the broker is refused during a retry", rounds * RETRIED, verdict)


def test_a_cut_while_jobs_run_and_then_sigkill(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    cuts = sized(3, 50)
    for _ in range(cuts):
        cut_and_kill(deployment)
        survivor = deployment.work(threads=16)
        deployment.wait_until_ended()
        assert survivor.terminate() == 0
    passed(6, "TCP cut while jobs run, then SIGKILL", cuts, deployment.judge())


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_many_cuts(deployment: FaultDeployment, passed: Passed, sized: Sized, how: str) -> None:
    cuts = sized(3, 30)
    with TcpProxy(deployment.broker_url) as proxy:
        workers = [deployment.work(threads=8, broker_url=proxy.url) for _ in range(2)]
        for number in range(1, cuts + 1):
            deployment.send(50, sleep=0.05)
            ended = 25 * number
            deployment.wait(lambda ended=ended: deployment.ended(deployment.confirmed) > ended, "some")  # type: ignore[misc]
            getattr(proxy, how)()
        verdict = deployment.judge()
        assert proxy.accepted > 2 * cuts
    assert all(alive == started for alive, started in (worker.threads() for worker in workers))
    passed(6, f"the connection {how} under load", cuts, verdict)


@pytest.fixture
def impatient(rabbitmq: RabbitMQServer) -> Iterator[int]:
    """The broker closes the channel of a consumer that does not ack within so many seconds; it looks twice a second."""
    seconds, usual = 2, 1800
    change = "application:set_env(rabbit, {}, {})."
    rabbitmqctl(rabbitmq, "eval", change.format("consumer_timeout", seconds * 1000))
    rabbitmqctl(rabbitmq, "eval", change.format("channel_tick_interval", 500))
    yield seconds
    rabbitmqctl(rabbitmq, "eval", change.format("consumer_timeout", usual * 1000))
    rabbitmqctl(rabbitmq, "eval", change.format("channel_tick_interval", 60_000))


def test_jobs_that_are_longer_than_the_broker_waits_for_an_ack(
    deployment: FaultDeployment, impatient: int, passed: Passed
) -> None:
    worker = deployment.work(threads=4, prefetch=8, lease_seconds=5)
    deployment.send(12, sleep=3.0 * impatient)
    verdict = deployment.judge(120)
    closed = worker.log.count("consumer_timeout")
    passed(17, "consumer_timeout below the length of a job", 12, verdict, f"channels closed: {closed}")
    assert set(deployment.history.count("call").values()) == {1}, "an execution was run twice"


def test_a_black_hole(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """The consumers of a worker and its publisher, which has events to send, notice within two heartbeats."""
    heartbeat = sized(6, 30)
    signs = (f"{EXECUTIONS_QUEUE} is away", "no connection to")
    with TcpProxy(deployment.broker_url) as proxy:
        worker = deployment.work(threads=8, broker_url=f"{proxy.url}?heartbeat={heartbeat}")
        deployment.wait_until_ended(deployment.send(8))
        deployment.send(8, sleep=1)
        proxy.hold()
        began = time.monotonic()
        deployment.send(30)
        deployment.wait(lambda: all(sign in worker.log for sign in signs), "it is noticed", 4.0 * heartbeat)
        noticed = time.monotonic() - began
        proxy.release()
        verdict = deployment.judge()
    assert deployment.waiting(EXECUTIONS_QUEUE) == 0
    passed(25, f"a black hole, heartbeat {heartbeat} s", 1, verdict, f"noticed in {noticed:.1f} s")
    assert noticed < 2 * heartbeat + 5  # pika by itself takes twice (heartbeat + 5), and a busy machine a little
