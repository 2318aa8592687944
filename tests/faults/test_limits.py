"""A limit holds although workers die at every step of it, and nothing that held a slot of it is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from uuid import UUID

from dspex.ids import DEFAULT_TENANT
from store import gates
from store.gates import GateKey, Limits
from tests.faults import failpoints
from tests.faults.deployment import FaultDeployment
from tests.faults.test_worker_dies import feed_until_dead

LIMIT = 3
LATE_SECONDS = 0.2
"""For so long, at most, a claim commits that has not seen the limit."""
AT_ONCE = """
SELECT max((SELECT count(*) FROM executions b WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at))
FROM executions a WHERE a.started_at > CAST(:since AS timestamptz)
"""
"""The most that ran when one began that was told of the limit."""

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_killed_at_every_step_of_a_limit(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    points = [*failpoints.GATE_POINTS, "choose.after", "finish.after"]
    rounds, rng = sized(1, 20), random.Random(3)
    key = GateKey("program", str(deployment.program_id), DEFAULT_TENANT)
    with deployment.engine.begin() as connection:
        gates.set_limit(connection, key, Limits(in_flight=LIMIT), by="tests")
    deployment.work(threads=4)
    for _ in range(rounds):
        doomed = {
            point: deployment.work(threads=4, wait=False, environment=failpoints.setting(point, rng.randint(1, 4)))
            for point in points
        }
        feed_until_dead(deployment, doomed)
        assert {point: worker.wait() for point, worker in doomed.items()} == dict.fromkeys(doomed, -9)
    passed(2, f"SIGKILL at each of {len(points)} steps of a limit", len(points) * rounds, deployment.judge(120))
    assert most_at_once(deployment) == LIMIT


def test_a_limit_that_is_set_while_work_flows(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """No process has read of it yet, and what runs already counts: nothing begins before enough of that has ended."""
    rounds, limit = sized(1, 30), 2 * LIMIT
    key = GateKey("program", str(deployment.program_id), DEFAULT_TENANT)
    for _ in range(2):
        deployment.work(threads=8)
    for _ in range(rounds):
        given = deployment.send(50, sleep=0.3)
        deployment.wait(partial(_many_run, deployment, given), "many run")
        with deployment.engine.begin() as connection:
            gates.set_limit(connection, key, Limits(in_flight=limit), by="tests")
        since = deployment.scalar(f"SELECT clock_timestamp() + interval '{LATE_SECONDS} s'")
        given += deployment.send(10, sleep=0.01)
        deployment.wait_until_ended(given)
        assert deployment.scalar(AT_ONCE, since=since) == limit
        with deployment.engine.begin() as connection:
            gates.remove_limit(connection, key, by="tests")
            gates.sweep(connection)
    passed(2, "a limit that is set while work flows", rounds, deployment.judge(120))


def _many_run(deployment: FaultDeployment, given: list[UUID]) -> bool:
    return deployment.running(given) > 2 * LIMIT + 4


def most_at_once(deployment: FaultDeployment) -> int:
    """The most calls that were open at once. Those of a worker end with it."""
    opened, most = set[tuple[str, int, int]](), 0
    for line in (deployment.directory / "history.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["what"] == "call":
            opened.add((record["id"], record["turn"], record["pid"]))
        elif record["what"] in ("returned", "failed"):
            opened.discard((record["id"], record["turn"], record["pid"]))
        elif record["what"] == "failpoint":
            opened = {one for one in opened if one[2] != record["pid"]}
        most = max(most, len(opened))
    return most
