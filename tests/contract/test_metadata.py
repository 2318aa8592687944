"""Metadata of an execution, from every verb that starts one to its view, and what it may not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dspex.aio import AsyncClient
from dspex.client.interface import Interface
from dspex.errors import DspexError
from tests.contract.interface import ARROW, ready

SAID = {"order": "17", "käufer": "Ünal", "empty": ""}


def test_it_is_in_the_view_whoever_starts_it(dspex: Interface) -> None:
    program_id, row = ready(dspex).program_id, {"question": "why?"}
    assert dspex.execute_program(program_id, row, metadata=SAID).metadata == SAID
    assert dspex.submit_program(program_id, row, metadata=SAID).execution(30).metadata == SAID
    assert dspex.start_program(program_id, row, metadata=SAID).execution(30).metadata == SAID
    assert [handle.execution(0).metadata for handle in dspex.map(program_id, [row, row], metadata=SAID)] == [SAID] * 2
    dspex.quick_execute(ARROW, row, metadata={"quick": "yes"})
    newest = dspex.recent_executions(10)
    assert [view.metadata for view in newest] == [{"quick": "yes"}, *[SAID] * 5]
    assert dspex.get_execution(newest[0].execution_id).metadata == {"quick": "yes"}
    assert dspex.execute_program(program_id, row).metadata == {}


def test_on_asyncio(dspex: Interface) -> None:
    program_id, row = ready(dspex).program_id, {"question": "why?"}

    async def run() -> list[dict[str, str]]:
        client = AsyncClient(dspex)
        handles = [
            await client.submit_program(program_id, row, metadata=SAID),
            await client.start_program(program_id, row, metadata=SAID),
        ]
        views = [await handle.execution(30) for handle in handles]
        views.append(await client.execute_program(program_id, row, metadata=SAID))
        views += [await handle.execution(30) async for handle in client.map(program_id, [row], metadata=SAID)]
        return [view.metadata for view in views]

    assert asyncio.run(run()) == [SAID] * 4


def test_the_same_request_with_other_metadata_is_the_same(dspex: Interface) -> None:
    program_id, row = ready(dspex).program_id, {"question": "why?"}
    first = dspex.execute_program(program_id, row, idempotency_key="once", metadata={"try": "1"})
    again = dspex.execute_program(program_id, row, idempotency_key="once", metadata={"try": "2"})
    assert (again.execution_id, again.metadata) == (first.execution_id, {"try": "1"})


def test_lists_and_counts_by_it(dspex: Interface) -> None:
    program_id, row = ready(dspex).program_id, {"question": "why?"}
    tagged = [dspex.execute_program(program_id, row, metadata={"batch": "7", "row": str(n)}) for n in range(3)]
    dspex.execute_program(program_id, row, metadata={"batch": "8"})
    found = dspex.list_executions(program_id=program_id, metadata={"batch": "7"})
    assert [view.execution_id for view in found.items] == [view.execution_id for view in reversed(tagged)]
    assert found.next_cursor is None
    assert dspex.count_executions(program_id, metadata={"batch": "7"}).completed == 3
    assert dspex.count_executions(program_id, metadata={"batch": "7", "row": "1"}).completed == 1
    assert dspex.count_executions(program_id, metadata={"batch": "9"}).completed == 0
    with pytest.raises(DspexError, match="metadata"):
        dspex.list_executions(metadata={"batch": 7})


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "a"},
        {"k" * 65: "a"},
        {"k": "v" * 257},
        {str(number): "" for number in range(17)},
        {"k": 1},
        {"k": None},
        {"k": {"nested": "no"}},
        ["k"],
        "text",
    ],
)
def test_what_it_may_not_be(dspex: Interface, metadata: Any) -> None:
    program_id = ready(dspex).program_id
    before = dspex.recent_executions()
    for verb in (dspex.execute_program, dspex.submit_program):
        call: Callable[..., Any] = verb
        with pytest.raises(DspexError) as refused:
            call(program_id, {"question": "why?"}, metadata=metadata)
        assert "metadata" in str(refused.value)
    assert dspex.recent_executions() == before


def test_what_cannot_be_stored_is_refused(dspex: Interface) -> None:
    program_id = ready(dspex).program_id
    with pytest.raises(DspexError):
        dspex.execute_program(program_id, {"question": "why?"}, metadata={"k": "\ud800"})
