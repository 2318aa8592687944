"""A limit holds although workers die at every step of it, and nothing that held a slot of it is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from dspex.ids import DEFAULT_TENANT
from store import gates
from store.gates import GateKey, Limits
from tests.faults import failpoints
from tests.faults.deployment import FaultDeployment
from tests.faults.test_worker_dies import feed_until_dead

LIMIT = 3

Passed = Callable[..., None]
Sized = Callable[[int, int], int]


def test_killed_at_every_step_of_a_limit(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    points = [*failpoints.GATE_POINTS, "choose.after", "begin.after", "call.before", "call.after", "finish.after"]
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
        feed_until_dead(deployment, list(doomed.values()))
        assert {point: worker.wait() for point, worker in doomed.items()} == dict.fromkeys(doomed, -9)
    passed(2, f"SIGKILL at each of {len(points)} steps of a limit", len(points) * rounds, deployment.judge(120))
    assert most_at_once(deployment) == LIMIT


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
