"""What a worker has accepted is a row: it needs no message and no queue of the broker any more."""

from __future__ import annotations

from collections.abc import Callable

from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.errors import BrokerUnavailable
from tests.faults.deployment import FaultDeployment
from workers.brokers.amqp import consumers

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

BY_WORKER = "SELECT count(*) FROM executions WHERE status = 'running' GROUP BY worker ORDER BY 1"


def test_what_is_accepted_needs_no_queue(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """All threads are busy; each command has its row all the same. Then its queue is purged, and deleted."""
    number = sized(300, 5_000)
    deployment.work(threads=4, prefetch=16)
    ids = deployment.send(number, gate="end")
    deployment.wait(lambda: deployment.count("true", ids) == number, "each has a row")
    assert deployment.running(ids) == 4
    deployment.wait(lambda: deployment.waiting(EXECUTIONS_QUEUE) == 0, "no message waits")
    with deployment.channel() as channel:
        channel.queue_purge(EXECUTIONS_QUEUE)
        channel.queue_delete(EXECUTIONS_QUEUE)
    deployment.history.open_gate("end")
    deployment.wait_until_ended(ids, sized(60, 600))
    deployment.wait(lambda: _is_consumed(deployment), "the queue is there again, and consumed")
    later = deployment.send(20)
    deployment.wait_until_ended(later)
    verdict = deployment.judge()
    passed(35, "the queue is purged and deleted after acceptance", number, verdict)
    assert set(deployment.history.count("call").values()) == {1}


def _is_consumed(deployment: FaultDeployment) -> bool:
    try:
        return consumers(deployment.broker_url, EXECUTIONS_QUEUE) == 1
    except BrokerUnavailable:
        return False


def test_a_worker_that_joins_a_backlog_of_long_jobs_has_its_share(
    deployment: FaultDeployment, passed: Passed, sized: Sized
) -> None:
    """The one that was there keeps none back; each runs as many as it has threads."""
    threads, number = sized(24, 100), sized(200, 2_000)
    deployment.work(threads=threads)
    ids = deployment.send(number, sleep=1.5)
    deployment.wait(lambda: deployment.count("true", ids) == number, "each has a row")
    deployment.work(threads=threads)

    def running() -> list[int]:
        with deployment.engine.connect() as connection:
            return list(connection.exec_driver_sql(BY_WORKER).scalars())

    deployment.wait(lambda: running() == [threads, threads], "both run as many as they can")
    deployment.wait_until_ended(ids, sized(60, 600))
    passed(36, "a worker joins a backlog", number, deployment.judge())


def test_what_a_worker_gives_back_another_begins_at_once(deployment: FaultDeployment, passed: Passed) -> None:
    """It has time, and is woken: within a lease, in which nothing is rescued."""
    leaving = deployment.work(threads=20, shutdown_seconds=0.2, lease_seconds=30)
    ids = deployment.send(20, gate="end")
    deployment.wait(lambda: deployment.running(ids) == 20, "20 run")
    deployment.work(threads=20, lease_seconds=30)
    assert leaving.terminate() == 0
    deployment.wait(lambda: deployment.running(ids) == 20, "the other runs them", 10)
    deployment.history.open_gate("end")
    deployment.wait_until_ended(ids)
    verdict = deployment.judge()
    passed(37, "what is given back is begun by another", 20, verdict)
    assert deployment.count("status = 'completed' AND attempt = 1", ids) == 20
