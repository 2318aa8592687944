"""Traces: kept with the end of an attempt, by whoever holds it, and gone with the execution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event

from dspex import Usage
from store import executions
from store.executions import Carried, Retry, Trace, traces
from store.tables import executions as executions_table
from tests.contract.store.rows import ALICE, BOB, ERROR, EXPIRED, completed, failed, ready_program, request, take

STEPS = [{"kind": "lm_call", "name": "m", "details": {"messages": ["é", None, 1.5]}, "duration_ms": 2.0}]


@pytest.fixture
def sent(connection: Connection) -> Iterator[list[str]]:
    texts = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        texts.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    yield texts
    event.remove(connection, "before_cursor_execute", note)


def test_it_is_kept_with_the_end_by_one_statement(connection: Connection, sent: list[str]) -> None:
    program_id = ready_program(connection)
    asked = [request(program_id) for _ in range(3)]
    claims = [take(connection, one) for one in asked]
    ends = [completed(one, claimed) for one, claimed in zip(asked, claims, strict=True)]
    sent.clear()
    executions.finish(connection, 0, ends[:1])
    without = len(sent)
    sent.clear()
    executions.finish(connection, 0, [replace(end, trace=Trace(1, STEPS, shortened=True)) for end in ends[1:]])
    assert len(sent) == without + 1
    assert sum("execution_traces" in text for text in sent) == 1
    assert traces.get(connection, asked[0].id) is None
    for one in asked[1:]:
        kept = traces.get(connection, one.id)
        assert kept is not None
        assert (kept.execution_id, kept.attempt, kept.steps, kept.shortened) == (one.id, 1, STEPS, True)
        assert executions.get(connection, [one.id])[0].finished_at is not None


def test_the_last_attempt_replaces_those_before(connection: Connection) -> None:
    asked = request(ready_program(connection))
    claimed = take(connection, asked)
    again = Retry(asked.id, claimed.lock_version, -1.0, 1, ERROR, Usage(), Carried(), trace=Trace(1, STEPS))
    assert executions.retry(connection, [again]) == [True]
    kept = traces.get(connection, asked.id)
    assert kept is not None
    assert (kept.attempt, kept.steps) == (1, STEPS)
    second = take(connection, asked)
    assert executions.finish(connection, 0, [replace(failed(asked, second), trace=Trace(2, []))]) == [True]
    kept = traces.get(connection, asked.id)
    assert kept is not None
    assert (kept.attempt, kept.steps, kept.shortened) == (2, [], False)


def test_who_has_lost_the_claim_leaves_none(connection: Connection) -> None:
    asked = request(ready_program(connection))
    lost = take(connection, asked, replace(ALICE, seconds=EXPIRED))
    take(connection, asked, BOB)
    assert executions.finish(connection, 0, [replace(completed(asked, lost), trace=Trace(1, STEPS))]) == [False]
    late = Retry(asked.id, lost.lock_version, 0.0, 1, ERROR, Usage(), Carried(), trace=Trace(1, STEPS))
    assert executions.retry(connection, [late]) == [False]
    assert traces.get(connection, asked.id) is None


def test_it_goes_with_its_execution(connection: Connection) -> None:
    asked = request(ready_program(connection))
    executions.finish(connection, 0, [replace(completed(asked, take(connection, asked)), trace=Trace(1, STEPS))])
    connection.execute(delete(executions_table).where(executions_table.c.id == asked.id))
    assert traces.get(connection, asked.id) is None


def test_it_is_of_a_tenant(connection: Connection) -> None:
    asked = request(ready_program(connection))
    executions.finish(connection, 0, [replace(completed(asked, take(connection, asked)), trace=Trace(1, STEPS))])
    assert traces.get(connection, asked.id, tenant="acme") is None
    assert traces.get(connection, asked.id) is not None
