"""A worker whose every thread for executions is busy still answers, changes programs, and cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from adapters.port import Outcome
from dspex import (
    CreateProgram,
    CreateSignature,
    ExecutionStatus,
    InitializeProgram,
    MessageRejected,
    ProgramReady,
    Signature,
    uuid7,
)
from dspex.contract.commands import CancelExecution
from tests.unit.system import System
from workers.handlers import waits

THREADS = 2


@pytest.fixture
def full(start: Callable[..., System]) -> tuple[System, list[UUID]]:
    """A worker of two threads, with six executions that run until the test ends."""
    system = start(threads=THREADS, prefetch=100)
    let_end = threading.Event()

    def run(_inputs: Mapping[str, Any]) -> Outcome:
        let_end.wait(30)
        return Outcome({"answer": "late"})

    program_id = system.program(adapter="scripted")
    system.scripted.run = run
    ids = [system.execute(program_id, question=str(number)) for number in range(6)]
    system.wait(lambda: len(system.scripted.runs) == THREADS)
    stop = system.stop

    def let_go(*arguments: float) -> None:
        let_end.set()
        stop(*arguments)

    system.stop = let_go  # type: ignore[assignment,method-assign]
    return system, ids


def test_programs_are_created_and_built(full: tuple[System, list[UUID]]) -> None:
    system, _ = full
    system.program()
    assert len(system.scripted.runs) == THREADS


def test_what_runs_is_cancelled(full: tuple[System, list[UUID]]) -> None:
    system, ids = full
    rows = [row for execution_id in ids if (row := system.row(execution_id)) is not None]
    running = next(row.id for row in rows if row.status == ExecutionStatus.RUNNING)
    system.send(CancelExecution(execution_id=running))
    system.wait(lambda: (row := system.row(running)) is not None and row.cancel_requested)
    assert len(system.scripted.runs) == THREADS


def test_what_waits_for_another_command_holds_no_thread(
    full: tuple[System, list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are threads: the one that they all wait for is handled, and then they are."""
    system, _ = full
    monkeypatch.setattr(waits, "DEPENDENCY_SECONDS", 30.0)
    signature_id, program_ids = uuid7(), [uuid7() for _ in range(30)]
    for program_id in program_ids:
        system.send(InitializeProgram(program_id=program_id))
    system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("q -> a")))
    for program_id in program_ids:
        system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="p", adapter_type="mock"))
    system.wait(lambda: len(system.events_of(ProgramReady)) >= 1 + len(program_ids))
    assert not system.rejected()
    assert system.process._intake.aside == []


def test_only_so_many_wait_and_none_for_ever(start: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait take room from those that the broker would deliver: a quarter of it is left."""
    monkeypatch.setattr(waits, "DEPENDENCY_SECONDS", 3.0)
    system = start(threads=2, prefetch=8)
    for _ in range(20):
        system.send(InitializeProgram(program_id=uuid7()))
    system.wait(lambda: len(system.events_of(MessageRejected)) == 20)
    assert {event.data.error.code for event in system.events_of(MessageRejected)} == {"not_found"}
    assert system.process._intake.aside == []
