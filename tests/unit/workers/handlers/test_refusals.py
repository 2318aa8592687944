"""What is not run: what a program, its inputs or a message have wrong, and what is told and kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from adapters.port import Outcome
from deploy.processes import wait_until
from dspex import (
    ErrorCode,
    ExecuteProgram,
    ExecutionFailed,
    ExecutionStatus,
    InitializeProgram,
    MessageRejected,
    Usage,
    uuid7,
    wrap,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.contract.callback import Callback
from tests.unit.system import PATIENCE, System


class TestRefusals:
    def test_program_not_initialized(self, system: System) -> None:
        program_id = system.program(initialize=False)
        row = system.ended(system.execute(program_id, question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.PROGRAM_NOT_READY
        assert "is draft: initialize it" in row.error.message
        assert "dspex.program.ready.v1" in row.error.message
        failed = system.event(ExecutionFailed, row.id)
        assert failed.data.error == row.error
        assert row.usage == Usage()

    def test_program_in_error_says_why(self, system: System) -> None:
        program_id = system.program(parameters={"latency": 3})
        row = system.ended(system.execute(program_id, question="why"))
        assert row.error is not None
        assert row.error.code == ErrorCode.PROGRAM_NOT_READY
        assert "is error (" in row.error.message
        assert "parameters.latency" in row.error.message
        assert "mend it, initialize it" in row.error.message

    def test_invalid_inputs_name_every_field(self, system: System) -> None:
        program_id = system.program("question, k: int, tags: list[str] -> answer", adapter="scripted")
        row = system.ended(system.execute(program_id, k="3", tags=["a", 1], more=True))
        assert row.error is not None
        assert row.error.code == ErrorCode.INVALID_INPUT
        assert {problem.field for problem in row.error.problems} == {"question", "k", "tags.1", "more"}
        assert system.event(ExecutionFailed, row.id).data.error == row.error
        assert system.scripted.runs == []

    def test_unknown_program(self, system: System) -> None:
        program_id, execution_id = uuid7(), uuid7()
        message_id = system.send(ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={}))
        rejected = system.event(MessageRejected, message_id)
        assert rejected.data.error.code == "not_found"
        assert str(program_id) in rejected.data.error.message
        assert rejected.data.queue == EXECUTIONS_QUEUE
        assert rejected.data.message_type == ExecuteProgram.type
        assert system.row(execution_id) is None

    def test_another_body_of_the_same_id_is_a_conflict_and_nothing_runs(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        execution_id = system.execute(program_id, question="why")
        before = system.ended(execution_id)
        message_id = system.send(
            ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": "other"})
        )
        rejected = system.event(MessageRejected, message_id)
        assert rejected.data.error.code == "conflict"
        assert system.row(execution_id) == before
        assert system.scripted.runs == [{"question": "why"}]
        assert wait_until(lambda: len(system.broker.dead_letters(EXECUTIONS_QUEUE)) == 1, PATIENCE)

    def test_a_rejected_message_is_recorded_with_its_body(self, system: System) -> None:
        bodies = {
            b"garbage": "malformed_message",
            b'{"specversion": "1.0", "id": "i", "type": "t"}': "unknown_message_type",
        }
        for body in bodies:
            system.broker.put(EXECUTIONS_QUEUE, body, PATIENCE)
        envelope = json.loads(wrap(InitializeProgram(program_id=uuid7()), source="/tests").encode())
        envelope["data"] = {"program": "none"}
        invalid = json.dumps(envelope).encode()
        system.broker.put(PROGRAMS_QUEUE, invalid, PATIENCE)
        assert wait_until(lambda: len(system.rejected()) == 3, PATIENCE)
        found = {row.body: row for row in system.rejected()}
        assert {body: found[body].error_code for body in bodies} == bodies
        row = found[invalid]
        assert row.queue == PROGRAMS_QUEUE
        assert row.error_code == "invalid_message"
        assert "data.program_id" in row.error_message
        assert (row.message_id, row.message_type) == (envelope["id"], InitializeProgram.type)
        assert row.body_size == len(invalid)
        event = system.event(MessageRejected, envelope["id"])
        assert event.data.rejection_id == row.id
        assert {problem.field for problem in event.data.error.problems} >= {"data.program_id"}

    def test_a_body_over_the_cap_is_kept_in_part(self, start: Callable[..., System]) -> None:
        system = start(max_message_bytes=2048)
        system.broker.put(EXECUTIONS_QUEUE, b"x" * 5000, PATIENCE)
        assert wait_until(lambda: len(system.rejected()) == 1, PATIENCE)
        (row,) = system.rejected()
        assert row.error_code == "message_too_large"
        assert (len(row.body), row.body_size) == (2048, 5000)

    def test_the_same_poison_twice_is_one_row(self, system: System) -> None:
        for _ in range(2):
            system.broker.put(PROGRAMS_QUEUE, b"garbage", PATIENCE)
        assert wait_until(lambda: [row.deliveries for row in system.rejected()] == [2], PATIENCE)

    def test_a_flood_of_poison_is_a_line(self, system: System, caplog: pytest.LogCaptureFixture) -> None:
        """Whatever it is that a producer can send over and over."""
        refused = Callback(url="https://10.1.2.3/", secret="A_WEBHOOK_SECRET", events=("completed",))
        program_id = system.program(adapter="scripted")
        caplog.clear()
        sent = [
            system.send(
                ExecuteProgram(execution_id=uuid7(), program_id=program_id, inputs={"question": "?"}, callback=refused)
            )
            for _ in range(20)
        ]
        for number in range(20):
            system.broker.put(PROGRAMS_QUEUE, b"garbage %d" % number, PATIENCE)
        assert wait_until(lambda: len(system.rejected()) == 20 + len(sent), PATIENCE)
        forbidden = "Messages on dspex.executions are rejected (forbidden_address): url: the host '10.1.2.3' has an"
        (refusal,) = [line for line in caplog.messages if line.startswith(forbidden)]
        garbage = "Messages on dspex.programs are rejected (malformed_message): the body is not JSON: expected value at"
        assert sorted(caplog.messages) == [
            refusal,
            f"{garbage} line 1 column 1",
            "Webhooks are refused: one to 10.1.2.3:443 would go to 10.1.2.3",
        ]

    def test_a_flood_of_what_fails_unexpectedly_is_a_traceback(
        self, system: System, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: Mapping[str, Any]) -> Outcome:
            raise ZeroDivisionError

        program_id = system.program(adapter="scripted")
        system.scripted.run = fail
        caplog.clear()
        for execution_id in [system.execute(program_id, question=str(number)) for number in range(10)]:
            assert system.ended(execution_id).status == ExecutionStatus.FAILED
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        assert [record.getMessage().partition(":")[0] for record in errors] == [
            f"Executions of program {program_id} fail unexpectedly (ZeroDivisionError)"
        ]
        assert errors[0].exc_info is not None
