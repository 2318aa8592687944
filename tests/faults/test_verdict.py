"""The judge itself: it finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from dspex import ExecutionOptions, ExecutionStatus, Usage, uuid7
from store.executions import Execution
from store.executions.timeline import TimelineEntry
from tests.faults.history import History
from tests.faults.verdict import Evidence, Told, Verdict, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROGRAM_ID = uuid7()
PENDING, RUNNING, COMPLETED = ExecutionStatus.PENDING, ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED


def execution(*story: tuple[ExecutionStatus, int]) -> Execution:
    """One that has gone through these states, in these attempts."""
    absent = {field.name: None for field in dataclasses.fields(Execution)}
    there = {
        "id": uuid7(),
        "program_id": PROGRAM_ID,
        "status": story[-1][0],
        "inputs": {},
        "options": ExecutionOptions(),
        "usage": Usage(),
        "timeline": tuple(TimelineEntry(status, NOW, attempt, "w") for status, attempt in story),
    }
    return Execution(**(absent | there))  # type: ignore[arg-type]


def told(of: Execution, answer: str = "x") -> Told:
    return Told(of.id, "dspex.execution.completed.v1", {"execution_id": str(of.id), "outputs": {"answer": answer}})


def evidence(*executions: Execution, calls: int = 1, completed: int | None = None, **other: object) -> Evidence:
    """All is well with these, but for what is given."""
    ended = [one for one in executions if one.status.terminal]
    well = Evidence(
        confirmed=frozenset(one.id for one in executions),
        calls={one.id: calls for one in executions},
        executions=executions,
        counted={PROGRAM_ID: {"completed": len(ended) if completed is None else completed, "failed": 0}},
        told=[told(one) for one in ended],
    )
    return dataclasses.replace(well, **other)  # type: ignore[arg-type]


def wrong(verdict: Verdict) -> list[str]:
    """What is wrong, without the ids and the reasons."""
    return [line.partition(":")[0] for line in verdict.reasons]


GOOD = ((RUNNING, 1), (COMPLETED, 1))


def test_nothing_is_wrong() -> None:
    verdict = judge(evidence(execution(*GOOD), execution(*GOOD)))
    assert wrong(verdict) == []
    assert verdict.numbers == "jobs      2   lost 0   double 0   untold 0   overrun 0"


def test_an_event_that_comes_twice_is_no_second_effect() -> None:
    one = execution(*GOOD)
    assert wrong(judge(evidence(one, told=[told(one), told(one)]))) == []


@pytest.mark.parametrize("story", [((RUNNING, 1),), ((RUNNING, 1), (PENDING, 1))])
def test_what_has_not_ended_is_lost(story: tuple[tuple[ExecutionStatus, int], ...]) -> None:
    assert wrong(judge(evidence(execution(*story)))) == ["lost"]


def test_what_has_no_row_is_lost() -> None:
    id_: UUID = uuid7()
    verdict = judge(evidence(execution(*GOOD), confirmed=frozenset({id_})))
    assert list(verdict.lost) == [id_]


def test_a_second_end_is_double() -> None:
    assert wrong(judge(evidence(execution(*GOOD, (COMPLETED, 1))))) == ["double"]
    assert wrong(judge(evidence(execution(*GOOD, (RUNNING, 2), (COMPLETED, 2)), calls=2))) == ["double"]


def test_two_ways_of_telling_are_double() -> None:
    one = execution(*GOOD)
    verdict = judge(evidence(one, told=[told(one, "x"), told(one, "y")]))
    assert wrong(verdict) == ["double"]
    assert '"y"' in verdict.double[one.id]


def test_an_event_without_a_row_is_double() -> None:
    assert wrong(judge(evidence(told=[told(execution(*GOOD))]))) == ["double"]


@pytest.mark.parametrize("counted", [0, 2])
def test_counters_that_say_otherwise_are_double(counted: int) -> None:
    assert wrong(judge(evidence(execution(*GOOD), completed=counted))) == ["double"]


def test_what_nobody_was_told_of_is_untold() -> None:
    assert wrong(judge(evidence(execution(*GOOD), told=[]))) == ["untold"]


@pytest.mark.parametrize(
    ("story", "calls", "allowed"),
    [
        (GOOD, 2, False),  # more calls than claims
        (((RUNNING, 1), (PENDING, 1), (RUNNING, 2), (COMPLETED, 2)), 2, True),
        ((*((RUNNING, attempt) for attempt in range(1, 5)), (COMPLETED, 4)), 4, False),  # more than attempts
        (((RUNNING, 1), (PENDING, 0)) * 3 + GOOD, 4, True),  # given back: no attempt was spent
    ],
)
def test_calls_within_the_attempts(story: tuple[tuple[ExecutionStatus, int], ...], calls: int, allowed: bool) -> None:
    assert wrong(judge(evidence(execution(*story), calls=calls))) == ([] if allowed else ["overrun"])


def test_a_history_is_written_by_many_at_once(tmp_path: Path) -> None:
    """Each with a descriptor of its own, as processes have them; every line is whole, and every call is counted."""
    turns: list[int] = []

    def write(number: int) -> None:
        history = History(tmp_path)
        for _ in range(200):
            turns.append(history.turn("one"))
            history.record("call", id="one", by=number, text="x" * 1000)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    history = History(tmp_path)
    assert history.count("call") == {"one": 1600}
    assert history.count("returned") == {}
    assert max(turns) == 1600
