"""How an execution ends: whatever an adapter does, and whatever becomes of the commit, it ends once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from adapters.port import AdapterError, Outcome
from deploy.processes import wait_until
from dspex import (
    ErrorCode,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStatus,
    Usage,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE
from store import counters, executions
from tests.unit.system import PATIENCE, System


class TestFailures:
    def test_an_adapter_error_is_kept_with_its_usage(self, system: System) -> None:
        def run(_inputs: Mapping[str, Any]) -> Outcome:
            raise AdapterError(ErrorCode.REFUSED, "slow\x00 down \ud800", usage=Usage(calls=2, input_tokens=5))

        system.scripted.run = run
        row = system.ended(system.execute(system.program(adapter="scripted"), question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.REFUSED
        assert row.error.message.startswith("slow")
        assert row.usage == Usage(calls=2, input_tokens=5)
        assert system.event(ExecutionFailed, row.id).data.usage == row.usage

    @pytest.mark.parametrize("kind", [RuntimeError, KeyError, SystemExit, RecursionError])
    def test_an_unexpected_error_shows_no_secret(self, system: System, kind: type[BaseException]) -> None:
        def run(_inputs: Mapping[str, Any]) -> Outcome:
            raise kind("key sesame")

        system.scripted.run = run
        row = system.ended(system.execute(system.program(adapter="scripted"), question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.INTERNAL
        assert kind.__name__ in row.error.message
        assert "sesame" not in str(row)
        system.event(ExecutionFailed, row.id)
        assert "sesame" not in str(system.events)
        assert wait_until(lambda: system.broker.dead_letters(EXECUTIONS_QUEUE) == [], PATIENCE)

    def test_outputs_over_the_cap(self, start: Callable[..., System]) -> None:
        system = start(max_message_bytes=2048)
        usage = Usage(calls=1, output_tokens=9, cost=0.5)
        system.scripted.run = lambda inputs: Outcome({"answer": "x" * int(inputs["question"])}, usage)
        program_id = system.program(adapter="scripted")
        at_the_cap = 2048 - len('{"answer":""}')
        row = system.ended(system.execute(program_id, question=str(at_the_cap)))
        assert row.status == ExecutionStatus.COMPLETED
        system.event(ExecutionCompleted, row.id)
        row = system.ended(system.execute(program_id, question=str(at_the_cap + 1)))
        assert row.error is not None
        assert row.error.code == ErrorCode.INVALID_OUTPUT
        assert "2049 bytes" in row.error.message
        assert row.outputs is None
        assert row.usage == usage + usage  # it was asked once more

    def test_a_result_that_cannot_be_stored_ends_the_execution_too(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = executions.finish_and_read

        def finish(connection: Any, shard: int, finishes: Any, **options: Any) -> Any:
            if any(item.outputs for item in finishes):
                raise ValueError("sesame")
            return store(connection, shard, finishes, **options)

        monkeypatch.setattr(executions, "finish_and_read", finish)
        row = system.ended(system.execute(system.program(), question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.INTERNAL
        assert "sesame" not in row.error.message
        system.event(ExecutionFailed, row.id)

    def test_a_database_that_is_locked_for_a_while_costs_time_only(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        system.app.programs._loaded.clear()
        blocker = system.app.engine.raw_connection()
        blocker.cursor().execute("BEGIN IMMEDIATE")
        execution_id = system.execute(program_id, question="why")
        assert wait_until(lambda: not system.broker.queues[EXECUTIONS_QUEUE]._bodies, PATIENCE)
        blocker.cursor().execute("ROLLBACK")
        blocker.close()
        assert system.ended(execution_id).status == ExecutionStatus.COMPLETED


class TestCommitsInDoubt:
    """The commit arrives, and the connection breaks before the answer: the writer makes the same write again."""

    @pytest.mark.parametrize(("write", "attempts"), [("claim", {1, 2}), ("finish_and_read", {1})])
    def test_the_execution_ends_once(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch, write: str, attempts: set[int]
    ) -> None:
        system = start(lease_seconds=1)
        store, doubts = getattr(executions, write), [True]

        def in_doubt(connection: Connection, *arguments: Any, **options: Any) -> Any:
            answer = store(connection, *arguments, **options)
            if doubts:
                doubts.pop()
                transaction = connection.get_transaction()
                assert transaction is not None
                transaction.commit()
                raise OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)
            return answer

        program_id = system.program(adapter="scripted")
        monkeypatch.setattr(executions, write, in_doubt)
        row = system.ended(system.execute(program_id, question="why"))
        assert row.status == ExecutionStatus.COMPLETED
        assert row.attempt in attempts  # 1: where a look was just being made, it was written down as waiting
        assert doubts == []
        assert len(system.scripted.runs) == 1
        system.event(ExecutionCompleted, row.id)
        with system.app.engine.connect() as connection:
            assert counters.totals(connection, program_id).completed == 1
