"""Cancels by filter, through the interface: in process and over the broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from dspex import DspexError, ExecutionOptions, ExecutionStatus
from dspex.client.interface import Interface
from dspex.contract.options import Lane
from dspex.contract.selections import CancelExecutions
from tests.contract.interface import SLOW, ready
from tests.waiting import wait_until


def scheduled(dspex: Interface, program_id: UUID, batch: str, lane: Lane | None = None) -> UUID:
    """An execution that waits: its time has not come."""
    options = ExecutionOptions(not_before=datetime.now(UTC) + timedelta(hours=1), lane=lane)
    handle = dspex.submit_program(program_id, {"question": "?"}, options=options, metadata={"batch": batch})
    wait_until(lambda: is_there(dspex, handle.execution_id), "it is accepted")
    return handle.execution_id


def is_there(dspex: Interface, execution_id: UUID) -> bool:
    try:
        dspex.get_execution(execution_id)
    except DspexError:
        return False
    return True


def statuses(dspex: Interface, ids: list[UUID]) -> set[ExecutionStatus]:
    return {dspex.get_execution(id_).status for id_ in ids}


def test_a_filter_chooses_and_each_ends_and_is_counted(dspex: Interface) -> None:
    program = ready(dspex)
    mine: dict[str, Any] = {"program_id": program.program_id}
    first = [scheduled(dspex, program.program_id, "first") for _ in range(3)]
    second = [scheduled(dspex, program.program_id, "second") for _ in range(2)]
    assert dspex.cancel_executions(program_id=uuid4()).count == 0
    assert dspex.cancel_executions(**mine, status=ExecutionStatus.RUNNING).count == 0
    assert dspex.cancel_executions(**mine, until=datetime.now(UTC) - timedelta(hours=1)).count == 0
    assert dspex.cancel_executions(**mine, metadata={"batch": "first"}, dry_run=True).count == 3
    assert statuses(dspex, [*first, *second]) == {ExecutionStatus.PENDING}
    assert dspex.cancel_executions(**mine, metadata={"batch": "first"}).count == 3
    assert statuses(dspex, first) == {ExecutionStatus.CANCELLED}
    assert statuses(dspex, second) == {ExecutionStatus.PENDING}
    assert dspex.handle(first[0]).execution(timeout=20).status == ExecutionStatus.CANCELLED
    assert dspex.get_program_statistics(program.program_id).cancelled == 3
    assert dspex.cancel_executions([first[0], second[0], uuid4()]).count == 1
    assert dspex.cancel_executions(**mine, status=ExecutionStatus.PENDING).count == 1
    assert dspex.cancel_executions(**mine).count == 0
    assert dspex.get_program_statistics(program.program_id).cancelled == 5


def test_with_a_limit_it_goes_on_where_it_ended(dspex: Interface) -> None:
    program = ready(dspex)
    mine: dict[str, Any] = {"program_id": program.program_id, "limit": 2}
    ids = [scheduled(dspex, program.program_id, "b") for _ in range(3)]
    counted = dspex.cancel_executions(**mine, dry_run=True)
    assert counted.count == 2
    assert dspex.cancel_executions(**mine, cursor=counted.next_cursor, dry_run=True).count == 1
    begun = dspex.cancel_executions(**mine)
    assert (begun.count, begun.next_cursor is None) == (2, False)
    later = scheduled(dspex, program.program_id, "b")
    ended = dspex.cancel_executions(**mine, cursor=begun.next_cursor)
    assert (ended.count, ended.next_cursor) == (1, None)
    assert statuses(dspex, ids) == {ExecutionStatus.CANCELLED}
    assert dspex.get_execution(later).status == ExecutionStatus.PENDING
    assert dspex.cancel_executions([later]).count == 1


def test_those_that_run_are_stopped(dspex: Interface) -> None:
    program = ready(dspex, configuration=SLOW)
    handles = [dspex.submit_program(program.program_id, {"question": "?"}) for _ in range(2)]
    runs = lambda: dspex.count_executions(program.program_id).running == 2  # noqa: E731
    wait_until(runs, "both run")
    assert dspex.cancel_executions(program_id=program.program_id, status=ExecutionStatus.RUNNING).count == 2
    assert {handle.execution(timeout=20).status for handle in handles} == {ExecutionStatus.CANCELLED}


def test_dead_letters_by_filter_have_a_limit_too(dspex: Interface) -> None:
    program = ready(dspex)
    mine: dict[str, Any] = {"program_id": program.program_id, "limit": 2}
    for _ in range(3):
        dspex.execute_program(program.program_id, {"k": 1}, validate=False)
    begun = dspex.discard_executions(**mine)
    assert (begun.count, begun.next_cursor is None) == (2, False)
    ended = dspex.discard_executions(**mine, cursor=begun.next_cursor)
    assert (ended.count, ended.next_cursor) == (1, None)


@pytest.mark.parametrize("how", [{"program_id": uuid4()}, {"limit": 3}, {"dry_run": True}, {"cursor": "c"}])
def test_ids_or_a_filter(how: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="not both"):
        CancelExecutions(execution_ids=(uuid4(),), **how)
