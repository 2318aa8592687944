"""Row 24: a worker that is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.faults.deployment import FaultDeployment

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_drained_with_jobs_in_flight(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """What runs ends, what waits or was claimed for later is run by the next; nobody runs anything twice."""
    rounds, slowest, grace = sized(1, 20), 0.0, 30
    for number in range(rounds):
        worker = deployment.work(threads=100, shutdown_seconds=grace, lease_seconds=10)
        ids = deployment.send(200, gate=f"round {number}")
        deployment.wait(lambda ids=ids: deployment.running(ids) >= 100, "100 run")  # type: ignore[misc]
        began = time.monotonic()
        worker.drain()
        deployment.history.open_gate(f"round {number}")
        assert worker.wait() == 0
        slowest = max(slowest, time.monotonic() - began)
        given_back = deployment.count("status = 'pending' AND attempt = 0", ids)
        assert deployment.ended(ids) + given_back == deployment.count("true", ids)
        following = deployment.work(threads=100, lease_seconds=10)
        deployment.wait_until_ended()
        assert following.terminate() == 0
    verdict = deployment.judge()
    passed(24, "SIGTERM with 100 jobs in flight", rounds, verdict, f"drained in {slowest:.1f} s")
    assert slowest < grace
    assert set(deployment.history.count("call").values()) == {1}


def test_drained_before_the_jobs_end(deployment: FaultDeployment, passed: Passed) -> None:
    """What does not end in time is given back, and spends no attempt."""
    worker = deployment.work(threads=100, shutdown_seconds=0.5, lease_seconds=10)
    ids = deployment.send(100, gate="end")
    deployment.wait(lambda: deployment.running(ids) == 100, "100 run")
    assert worker.terminate() == 0
    assert deployment.count("status = 'pending' AND attempt = 0", ids) == 100
    deployment.history.open_gate("end")
    deployment.work(threads=100, lease_seconds=10)
    verdict = deployment.judge()
    assert deployment.count("status = 'completed' AND attempt = 1", ids) == 100
    passed(24, "SIGTERM, and the grace is too short", 1, verdict)
