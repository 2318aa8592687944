"""Rows 8 and 9: a worker that was silent for too long is fenced, and one that is only busy is not."""

from __future__ import annotations

from collections.abc import Callable

from dspex.amqp.topology import EXECUTIONS_QUEUE
from tests.faults.deployment import FaultDeployment
from tests.faults.zombie import stop_until_rescued
from workers.brokers.amqp import consumers

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_a_stopped_worker_that_goes_on_is_refused(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    zombies = 0
    for _ in range(sized(1, 10)):
        zombies += stop_until_rescued(deployment)
    verdict = deployment.judge()
    refused = len(deployment.history.records("refused"))
    passed(8, "SIGSTOP past the lease, rescue, SIGCONT", zombies, verdict, f"stale writes refused: {refused}")
    assert refused == zombies


def test_a_lease_of_a_busy_worker_is_kept(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Executions of five leases that hold the interpreter, two in each process; another worker waits for its chance."""
    lease = 2
    for _ in range(2):
        deployment.work(threads=2, prefetch=2, lease_seconds=lease)
    # Each is to have two of the four: one that is alone there would read all.
    deployment.wait(lambda: consumers(deployment.broker_url, EXECUTIONS_QUEUE) == 2, "both consume")
    for _ in range(sized(1, 25)):
        ids = deployment.send(4, spin=5.0 * lease)
        deployment.wait(lambda ids=ids: deployment.running(ids) == 4, "all run")  # type: ignore[misc]
        rescuer = deployment.work(threads=8, lease_seconds=lease)
        deployment.wait_until_ended(ids, 120)
        assert rescuer.terminate() == 0
    verdict = deployment.judge()
    steals = sum(number - 1 for number in deployment.history.count("call").values())
    passed(9, "a job of 5 leases that holds the interpreter", verdict.jobs, verdict, f"steals: {steals}")
    assert steals == 0
