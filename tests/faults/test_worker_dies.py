"""Rows 1, 2 and 14: a worker ends at any time, at every point of its code, or by what it runs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from uuid import UUID

import pytest

from tests.faults import failpoints
from tests.faults.deployment import FaultDeployment, Worker

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_killed_at_a_random_time(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    kills, rng = sized(20, 300), random.Random(1)
    workers = [deployment.work(threads=4), deployment.work(threads=4)]
    for number in range(kills):
        for _ in range(10):
            deployment.submit(sleep=rng.uniform(0, 0.3))
        time.sleep(rng.uniform(0, 0.5))  # any time will do
        workers[number % 2].kill()
        workers[number % 2] = deployment.work(threads=4, wait=False)
    passed(1, "SIGKILL a worker at a random time", kills, deployment.judge(120))


def test_killed_at_every_point(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Each of the workers is to die at a point of its own, twelve at a time; one that is not goes on with what they
    leave.
    """
    rounds, rng = sized(1, 20), random.Random(2)
    deployment.work(threads=4)
    for first in [*range(0, len(failpoints.POINTS), 12)] * rounds:
        doomed = {
            point: deployment.work(threads=4, wait=False, environment=failpoints.setting(point, rng.randint(1, 6)))
            for point in failpoints.POINTS[first : first + 12]
        }
        feed_until_dead(deployment, doomed)
        assert {point: worker.wait() for point, worker in doomed.items()} == dict.fromkeys(doomed, -9)
    reached = [record["point"] for record in deployment.history.records("failpoint")]
    assert sorted(reached) == sorted([*failpoints.POINTS] * rounds)
    passed(2, f"SIGKILL at each of {len(failpoints.POINTS)} code points", len(reached), deployment.judge(120))


def feed_until_dead(deployment: FaultDeployment, doomed: Mapping[str, Worker]) -> None:
    """Give them work until all have ended: there are always some executions that wait, and some to be rescued."""
    given: list[UUID] = []

    def dead() -> bool:
        if len(given) - deployment.ended(given) < 100:
            given.extend(deployment.send(15, sleep=0.02))
            given.extend(deployment.send(5, fail="transient", times=1))
        left[:] = [point for point, worker in doomed.items() if worker.alive]
        if any(point.startswith("rescue") for point in left):
            lose_a_lease(deployment)
        return not left

    left: list[str] = []
    try:
        deployment.wait(dead, "the workers have come to their points")
    except AssertionError as late:
        pytest.fail(f"not reached: {left}\n{late}", pytrace=False)


def lose_a_lease(deployment: FaultDeployment) -> None:
    """As if its worker had been frozen."""
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE executions SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE id = "
            "(SELECT id FROM executions WHERE status = 'running' LIMIT 1 FOR UPDATE SKIP LOCKED)"
        )


def test_what_ends_its_process_takes_nothing_else_with_it(deployment: FaultDeployment, passed: Passed) -> None:
    """Two workers, replaced when they die, as by a supervisor; every fifth execution ends its process."""
    workers = [deployment.work(threads=8), deployment.work(threads=8)]
    poison: list[UUID] = []
    siblings: list[UUID] = []
    for number in range(25):
        if number % 5 == 2:
            poison += deployment.send(sleep=0.1, kill=True)
        else:
            siblings += deployment.send(sleep=0.2)

    def ended() -> bool:
        for index in range(len(workers)):
            if not workers[index].alive:
                workers[index] = deployment.work(threads=8)
        return deployment.ended([*poison, *siblings]) == len(poison) + len(siblings)

    deployment.wait(ended, "all have ended")
    verdict = deployment.judge()
    assert deployment.count("status = 'failed'", poison) == len(poison)
    assert deployment.count("status = 'completed'", siblings) == len(siblings)
    passed(14, "an adapter that ends its process, among siblings", len(poison), verdict)
