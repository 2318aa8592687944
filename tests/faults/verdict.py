"""Whether what happened is what was promised: nothing lost, nothing counted twice, no call too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from dspex import ExecutionStatus
from store.executions import Execution
from store.executions.timeline import TimelineEntry

TERMINAL = frozenset(str(status) for status in ExecutionStatus if status.terminal)


class Told(NamedTuple):
    """A terminal event as a listener got it: the callback."""

    execution_id: UUID
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What is known at the end.

    Attributes:
        confirmed: executions whose publish was confirmed.
        calls: how often the adapter was called for each.
        executions: the rows.
        counted: by program, how many executions its counters have, by status.
        told: the terminal events.
        max_attempts: how often an execution may be started.
    """

    confirmed: frozenset[UUID]
    calls: Mapping[UUID, int]
    executions: Sequence[Execution]
    counted: Mapping[UUID, Mapping[str, int]]
    told: Sequence[Told]
    max_attempts: int = 3


@dataclass
class Verdict:
    """What was found wrong, by execution or program, with the reason.

    Attributes:
        lost: confirmed, and no terminal row.
        double: it had an effect twice: ended twice, told in two ways, counted otherwise than the rows say.
        untold: ended, and no terminal event.
        overrun: the adapter was called more often than it was allowed.
    """

    jobs: int = 0
    lost: dict[UUID, str] = field(default_factory=dict)
    double: dict[UUID, str] = field(default_factory=dict)
    untold: dict[UUID, str] = field(default_factory=dict)
    overrun: dict[UUID, str] = field(default_factory=dict)

    @property
    def numbers(self) -> str:
        """For quoting."""
        kinds = ("lost", "double", "untold", "overrun")
        return f"jobs {self.jobs:>6}" + "".join(f"   {kind} {len(getattr(self, kind))}" for kind in kinds)

    @property
    def reasons(self) -> list[str]:
        """A line for each thing that is wrong."""
        kinds = ("lost", "double", "untold", "overrun")
        return [f"{kind}: {id_}: {why}" for kind in kinds for id_, why in getattr(self, kind).items()]


def judge(evidence: Evidence) -> Verdict:
    """Compare what was promised with what happened."""
    verdict = Verdict(jobs=len(evidence.confirmed))
    rows = {execution.id: execution for execution in evidence.executions}
    for id_ in sorted(evidence.confirmed - rows.keys()):
        verdict.lost[id_] = "no row"
    told: dict[UUID, list[Told]] = {}
    for event in evidence.told:
        told.setdefault(event.execution_id, []).append(event)
    for execution in evidence.executions:
        _judge_row(verdict, execution, told.get(execution.id, []))
        _judge_calls(verdict, execution, evidence)
    for id_ in told.keys() - rows.keys():
        verdict.double[id_] = "told of, and no row"
    _judge_counters(verdict, evidence)
    return verdict


def _judge_row(verdict: Verdict, execution: Execution, told: Sequence[Told]) -> None:
    ends = [entry.status for entry in execution.timeline if entry.status in TERMINAL]
    if not execution.status.terminal:
        verdict.lost[execution.id] = f"still {execution.status}, {_story(execution.timeline)}"
    elif len(ends) != 1:
        verdict.double[execution.id] = f"ended {len(ends)} times: {_story(execution.timeline)}"
    elif not told:
        verdict.untold[execution.id] = f"{execution.status}, and no event: {_story(execution.timeline)}"
    contents = {json.dumps([event.type, event.data], sort_keys=True, default=str) for event in told}
    if len(contents) > 1:
        verdict.double[execution.id] = "told in several ways: " + " / ".join(sorted(contents))


def _judge_calls(verdict: Verdict, execution: Execution, evidence: Evidence) -> None:
    calls = evidence.calls.get(execution.id, 0)
    claims = sum(entry.status == ExecutionStatus.RUNNING for entry in execution.timeline)
    allowed = min(claims, evidence.max_attempts + _given_back(execution.timeline))
    if calls > allowed:
        verdict.overrun[execution.id] = f"{calls} calls, {allowed} allowed: {_story(execution.timeline)}"


def _given_back(timeline: Iterable[TimelineEntry]) -> int:
    """How many starts spent no attempt: those that a shutdown or a rate limit has taken back."""
    given_back, before = 0, 0
    for entry in timeline:
        given_back += entry.status == ExecutionStatus.PENDING and entry.attempt < before
        before = entry.attempt
    return given_back


def _judge_counters(verdict: Verdict, evidence: Evidence) -> None:
    rows: dict[UUID, Counter[str]] = {}
    for execution in evidence.executions:
        if execution.status.terminal:
            rows.setdefault(execution.program_id, Counter())[str(execution.status)] += 1
    for program_id in rows.keys() | evidence.counted.keys():
        there = dict(rows.get(program_id, {}))
        counted = {status: number for status, number in evidence.counted.get(program_id, {}).items() if number}
        if counted != there:
            verdict.double[program_id] = f"the counters say {counted}, the rows {there}"


def _story(timeline: Iterable[TimelineEntry]) -> str:
    return " > ".join(f"{entry.status} ({entry.attempt})" for entry in timeline) or "no timeline"
