"""Row 39: cancels that race with what they cancel, among duplicates, and workers that are killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event
from uuid import UUID

from pydantic import JsonValue

from dspex import DspexError, ExecuteProgram, ExecutionStatus, uuid7
from dspex.client.remote import RemoteClient
from dspex.contract.results import ExecutionView
from tests.faults.backlog import Watch, rest
from tests.faults.deployment import FaultDeployment
from tests.faults.fleet import Fleet

Passed = Callable[..., None]
Sized = Callable[[int, int], int]

ASKING = 16
"""How many threads cancel at a time."""
APART = 24
"""How many places a cancel may be ahead of its execute, or behind it."""
TWICE = 0.1
"""Which part of the messages comes twice."""

Told = dict[UUID, ExecutionView | str]


def test_what_is_told_cancelled_never_runs(deployment: FaultDeployment, passed: Passed, sized: Sized) -> None:
    """Two workers of two processes each. What is told is so, whatever dies: cancelled, not found, or on its way."""
    number, kills, random, stop = sized(120, 10_000), sized(1, 40), Random(39), Event()
    told: Told = {}
    watch = Watch(deployment)
    with (
        Fleet(deployment, number=sized(2, 4), threads=4) as fleet,
        RemoteClient(deployment.broker_url, source="/cancels", timeout=120, validate=False) as client,
        ThreadPoolExecutor(ASKING) as asking,
        ThreadPoolExecutor(1) as watching,
    ):
        watched = watching.submit(watch.run, stop)

        def do(step: tuple[float, bool, int]) -> None:
            _, cancels, index = step
            if cancels:
                told[commands[index].execution_id] = cancel(client, commands[index].execution_id)
                return
            for _ in range(2 if random.random() < TWICE else 1):
                deployment.publish(commands[index])

        commands = [execute(deployment, random) for _ in range(number)]
        done = asking.map(do, shuffled(number, random))
        for part in range(1, kills + 1):
            some = part * number // (kills + 1)
            deployment.wait(lambda some=some: len(told) >= some, f"{some} are told", 120)  # type: ignore[misc]
            fleet.kill(random)
        list(done)
        deployment.wait_until_ended(seconds=sized(60, 300))
        verdict = deployment.judge()
        stop.set()
        watched.result()
    figures = Counter(one if isinstance(one, str) else str(one.status) for one in told.values())
    passed(39, "submits and cancels that race", number, verdict, f"kills {kills}, told {dict(figures)}")
    assert len(told) == number
    assert wrongly_told(deployment, told) == []
    assert watch.wrong == []
    assert fleet.strange == []
    assert rest(deployment) == []


def execute(deployment: FaultDeployment, random: Random) -> ExecuteProgram:
    """Most are short."""
    inputs: dict[str, JsonValue] = {"sleep": random.choice([0, 0.01, 0.05, 0.3])}
    return ExecuteProgram(execution_id=uuid7(), program_id=deployment.program_id, inputs=inputs)


def shuffled(number: int, random: Random) -> Sequence[tuple[float, bool, int]]:
    """Each twice: to submit and to cancel, in an order in which either may be some places ahead."""
    steps = [(index + APART * random.random(), cancels, index) for index in range(number) for cancels in (False, True)]
    return sorted(steps)


def cancel(client: RemoteClient, execution_id: UUID) -> ExecutionView | str:
    """Cancel one; returns what was told."""
    try:
        return client.cancel_execution(execution_id)
    except DspexError as error:
        return error.code


def wrongly_told(deployment: FaultDeployment, told: Told) -> list[str]:
    """A line for each of which something was told that is not so."""
    rows = deployment.rows("SELECT id, status, timeline FROM executions")
    calls = deployment.history.count("call")
    wrong = []
    for id_, status, timeline in rows:
        one, called = told[id_], calls[str(id_)]
        story = f"{id_}: {status}, {called} calls, {[entry['status'] for entry in timeline]}"
        if isinstance(one, str):
            # One that is not found was not touched; where the answer was lost, the cancel came again to one that ended.
            if one not in ("illegal_transition", "not_found") or (one == "not_found" and status != "completed"):
                wrong.append(f"told {one}: {story}")
        elif one.status == ExecutionStatus.CANCELLED:
            if status != "cancelled" or (one.attempt == 0 and called):
                wrong.append(f"told cancelled in attempt {one.attempt}: {story}")
        elif not one.cancel_requested:
            wrong.append(f"told nothing: {story}")
    return wrong
