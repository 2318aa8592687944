"""A blip is no verdict: while the database does not do its part, nothing is rejected and nothing fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from deploy.processes import wait_until
from dspex import (
    CreateProgram,
    CreateSignature,
    ExecuteProgram,
    ExecutionCompleted,
    InitializeProgram,
    MessageRejected,
    ProgramReady,
    Signature,
    uuid7,
)
from dspex.contract.commands import Command, UpdateProgram
from dspex.contract.configuration import ConfigurationChange
from tests.canary import CANARY
from tests.unit.system import System
from workers.application import wiring as application

TABLES = ("executions", "programs", "signatures", "event_outbox", "program_counters", "program_durations")
"""Each a migration has half-way, or a grant was forgotten for."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "PATIENCE_SECONDS", 0.2)


def rename(engine: Engine, table: str, to: str) -> None:
    """SQLite would refuse what refers to a missing table; the other names are found at once."""
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {to}")
        connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")


def work(system: System, program_id: UUID) -> tuple[list[UUID], list[UUID]]:
    """Send executions and commands of each kind; returns the executions and the programs."""
    run, made = [uuid7() for _ in range(20)], [uuid7() for _ in range(5)]
    commands: list[Command] = [
        ExecuteProgram(execution_id=id_, program_id=program_id, inputs={"question": CANARY}) for id_ in run
    ]
    for id_ in made:
        signature_id = uuid7()
        commands += [
            CreateSignature(signature_id=signature_id, signature=Signature.parse("question -> answer")),
            CreateProgram(program_id=id_, name="p", signature_id=signature_id, adapter_type="mock"),
            InitializeProgram(program_id=id_),
        ]
    commands.append(UpdateProgram(program_id=program_id, name="another"))
    for command in commands:
        system.send(command)
    return run, made


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_waited_for(
    start: Callable[..., System], table: str, caplog: pytest.LogCaptureFixture
) -> None:
    system = start()
    caplog.set_level(logging.INFO)
    program_id = system.program()
    caplog.clear()
    rename(system.app.engine, table, "away")
    run, made = work(system, program_id)
    assert wait_until(lambda: "no such table" in caplog.text, 30)
    assert not wait_until(lambda: bool(system.events_of(MessageRejected)), 1.0)
    rename(system.app.engine, "away", table)
    for id_ in run:
        system.event(ExecutionCompleted, id_)
    for id_ in made:
        system.event(ProgramReady, id_)
    assert system.events_of(MessageRejected) == []
    assert caplog.text.count("no such table") <= 6  # a line a minute for each who waits, not one for each message
    assert "Traceback" not in caplog.text


def test_a_read_that_fails_dead_letters_nothing(start: Callable[..., System], monkeypatch: pytest.MonkeyPatch) -> None:
    system = start()
    program_id = system.program()
    real, failed = system.app.engine.connect, list[int]()

    def connect() -> Any:
        if len(failed) < 5:
            failed.append(1)
            raise OperationalError("SELECT 1", {}, Exception("the connection is gone"), connection_invalidated=True)
        return real()

    monkeypatch.setattr(system.app.engine, "connect", connect)
    system.send(UpdateProgram(program_id=program_id, configuration=ConfigurationChange()))
    assert wait_until(lambda: len(system.events_of(ProgramReady, program_id)) == 2, 30)
    assert len(failed) == 5
    assert system.events_of(MessageRejected) == []
