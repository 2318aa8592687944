"""What waits of an archived program ends by itself, and is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dspex import ErrorCode, ExecutionFailed, ExecutionOptions, ExecutionStatus, uuid7
from tests.contract.store.rows import accept
from tests.unit.system import System
from workers.local import LocalClient


def test_what_waits_of_an_archived_program_ends_and_is_told(system: System) -> None:
    dspex, program_id, ids = LocalClient(system.app), system.program(), [uuid7() for _ in range(3)]
    later = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1))
    with system.app.engine.begin() as connection:
        for execution_id in ids:
            asked = replace(system.request(program_id, execution_id, question="?"), options=later)
            accept(connection, asked)
    handles = [dspex.handle(execution_id) for execution_id in ids]
    dspex.archive_program(program_id)
    for handle in handles:
        view = handle.execution(timeout=20)
        assert (view.status, view.error and view.error.code) == (ExecutionStatus.FAILED, "program_archived")
        assert system.event(ExecutionFailed, handle.execution_id).data.error.code == ErrorCode.PROGRAM_ARCHIVED
    assert dspex.get_program_statistics(program_id).failed == 3
    system.wait(lambda: not system.unsent())
    dspex.destroy_program(program_id)


def test_what_comes_later_has_the_same_code(system: System) -> None:
    dspex, program_id = LocalClient(system.app), system.program()
    dspex.archive_program(program_id)
    late = dspex.execute_program(program_id, {"question": "?"})
    assert (late.error and late.error.code, late.usage.calls) == ("program_archived", 0)
    assert late.error is not None
    assert "restore it, and replay this" in late.error.message
    dspex.restore_program(program_id)
    assert dspex.replay_executions([late.execution_id]).count == 1
    system.wait(lambda: dspex.get_execution(late.execution_id).status == ExecutionStatus.COMPLETED)
