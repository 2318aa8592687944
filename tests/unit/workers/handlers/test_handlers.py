"""What each command comes to, in one process: rows, events, rejections. The whole application, on SQLite, in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import pytest

from adapters.port import AdapterError
from deploy.processes import wait_until
from dspex import (
    Configuration,
    CreateProgram,
    CreateSignature,
    ErrorCode,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionOptions,
    ExecutionStatus,
    InitializeProgram,
    MessageRejected,
    ProgramError,
    ProgramReady,
    Signature,
    uuid7,
)
from dspex.errors import BrokerUnavailable
from store import counters, event_outbox, executions
from store.event_outbox import OutboxEntry
from tests.unit.system import PATIENCE, System
from workers.brokers.memory import MemoryPublisher
from workers.outbound.ended_event import event_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class TestHappyPath:
    def test_outputs_beside_the_signature_are_in_the_event(self, system: System) -> None:
        signature_id, program_id, execution_id = uuid7(), uuid7(), uuid7()
        system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("question -> answer")))
        system.send(
            CreateProgram(
                program_id=program_id,
                signature_id=signature_id,
                name="p",
                adapter_type="mock",
                configuration=Configuration(extra_outputs=("reasoning",)),
            )
        )
        system.send(InitializeProgram(program_id=program_id))
        system.event(ProgramReady, program_id)
        system.send(ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": "why"}))
        told = system.event(ExecutionCompleted, execution_id).data
        assert (list(told.outputs), told.extra_outputs) == (["answer"], {"reasoning": "mock reasoning"})
        row = system.ended(execution_id)
        # What the relay, the deliverer of webhooks and whoever asks again send is made of the row.
        assert event_of(row, row.attempt, {}) == told.model_copy(update={"metadata": {}})

    def test_create_initialize_execute(self, system: System) -> None:
        signature_id, program_id, execution_id = uuid7(), uuid7(), uuid7()
        signature = Signature.parse("question, k: int = 3 -> answer, score: float")
        system.send(CreateSignature(signature_id=signature_id, signature=signature))
        system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="Named", adapter_type="mock"))
        system.send(InitializeProgram(program_id=program_id), TRACE)
        ready = system.event(ProgramReady, program_id)
        assert ready.data.name == "Named"
        assert ready.data.backend_id.startswith("mock-")
        assert ready.traceparent == TRACE

        command = ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": "why"})
        system.send(command, TRACE)
        completed = system.event(ExecutionCompleted, execution_id)
        row = system.ended(execution_id)
        assert completed.traceparent == TRACE
        assert completed.source == "/dspex/worker"
        assert completed.data.program_id == program_id
        assert completed.data.attempt == 1
        assert completed.data.usage.calls == 1
        assert signature.validate_outputs(completed.data.outputs) == row.outputs
        assert row.status == ExecutionStatus.COMPLETED
        assert row.inputs == {"question": "why"}
        assert (row.attempt, row.source, row.traceparent) == (1, "/tests", TRACE)
        assert row.backend_id == ready.data.backend_id
        assert row.usage == completed.data.usage
        assert system.rejected() == []

    def test_defaults_reach_the_adapter(self, system: System) -> None:
        program_id = system.program("question, k: int = 3 -> answer", adapter="scripted")
        system.ended(system.execute(program_id, question="why"))
        assert system.scripted.runs == [{"question": "why", "k": 3}]

    def test_the_seed_reaches_the_adapter(self, system: System) -> None:
        program_id = system.program()
        answers = set()
        for seed in (1, 2, 1):
            command = ExecuteProgram(
                execution_id=uuid7(),
                program_id=program_id,
                inputs={"question": "why"},
                options=ExecutionOptions(seed=seed),
            )
            system.send(command)
            answers.add(json.dumps(system.ended(command.execution_id).outputs))
        assert len(answers) == 2

    def test_many_at_once_are_counted_exactly(self, system: System) -> None:
        program_id = system.program(parameters={"fail": {"refused": [{"question": "7"}]}})
        ids = [system.execute(program_id, question=str(number % 50)) for number in range(300)]
        assert sum(system.ended(execution_id).status == ExecutionStatus.FAILED for execution_id in ids) == 6
        with system.app.engine.connect() as connection:
            totals = counters.totals(connection, program_id)
            assert executions.count(connection, program_id).by_status == {
                ExecutionStatus.COMPLETED: 294,
                ExecutionStatus.FAILED: 6,
            }
        assert (totals.completed, totals.failed) == (294, 6)

    def test_many_wait_for_others_and_these_come_all_the_same(self, start: Callable[..., System]) -> None:
        """Three quarters of what a process takes ahead."""
        system = start(prefetch=8)
        signature_id, wanted = uuid7(), [uuid7() for _ in range(6)]
        for program_id in wanted:
            system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="n", adapter_type="mock"))
        assert wait_until(lambda: len(system.process._intake.aside) == 6, PATIENCE)
        system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("a -> b")))
        assert wait_until(lambda: all(system.find_program(program_id) for program_id in wanted), PATIENCE)
        assert system.events_of(MessageRejected) == []

    def test_commands_in_any_order_all_at_once(self, system: System) -> None:
        wanted: list[tuple[UUID, UUID]] = [(uuid7(), uuid7()) for _ in range(3)]
        for _, program_id in wanted:
            system.send(InitializeProgram(program_id=program_id))
        for signature_id, program_id in wanted:
            system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="n", adapter_type="mock"))
        for signature_id, _ in wanted:
            system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("a -> b")))
        for _, program_id in wanted:
            system.event(ProgramReady, program_id)
        assert system.rejected() == []

    def test_commands_again_change_nothing(self, system: System) -> None:
        signature_id, program_id = uuid7(), uuid7()
        for _ in range(2):
            system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("a -> b")))
            system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="n", adapter_type="mock"))
            system.send(InitializeProgram(program_id=program_id))
        assert wait_until(lambda: bool(system.events_of(ProgramReady, program_id)), PATIENCE)
        system.stop()
        assert {event.data.backend_id for event in system.events_of(ProgramReady)} == {
            system.events_of(ProgramReady)[0].data.backend_id
        }
        assert system.events_of(MessageRejected) == []


class TestPrograms:
    def test_unknown_adapter(self, system: System) -> None:
        signature_id, program_id = uuid7(), uuid7()
        system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("question -> answer")))
        system.send(CreateProgram(program_id=program_id, signature_id=signature_id, name="p", adapter_type="unknown"))
        error = system.event(MessageRejected).data.error
        assert error.code == ErrorCode.PERMANENT
        assert "adapter_type: 'unknown' is not one of mock, native" in error.message
        assert system.find_program(program_id) is None

    def test_wrong_parameters(self, system: System) -> None:
        program_id = system.program(parameters={"latency": 3})
        assert "parameters.latency" in system.event(ProgramError, program_id).data.error.message

    @pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
    def test_an_adapter_that_breaks_while_it_builds(self, system: System, kind: type[BaseException]) -> None:
        def build() -> None:
            raise kind("key sesame")

        system.scripted.build = build
        program_id = system.program(adapter="scripted")
        error = system.event(ProgramError, program_id).data.error
        assert error.code == ErrorCode.INTERNAL
        assert kind.__name__ in error.message
        assert "sesame" not in error.message

    def test_an_error_can_be_initialized_again(self, system: System) -> None:
        def build() -> None:
            raise AdapterError(ErrorCode.AUTH, "no key")

        system.scripted.build = build
        program_id = system.program(adapter="scripted")
        assert system.event(ProgramError, program_id).data.error.code == ErrorCode.AUTH
        system.scripted.build = lambda: None
        system.send(InitializeProgram(program_id=program_id))
        system.event(ProgramReady, program_id)
        assert system.ended(system.execute(program_id, question="why")).status == ExecutionStatus.COMPLETED

    def test_another_signature_of_the_same_id(self, system: System) -> None:
        signature_id = uuid7()
        system.send(CreateSignature(signature_id=signature_id, signature=Signature.parse("a -> b")))
        second = CreateSignature(signature_id=signature_id, signature=Signature.parse("a -> c"))
        # Both may be in one batch, in either order: one is kept, the other is rejected.
        system.send(second)
        rejected = system.event(MessageRejected)
        assert rejected.data.error.code == "conflict"
        assert str(signature_id) in rejected.data.error.message

    def test_a_signature_that_never_comes(self, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("workers.handlers.waits.DEPENDENCY_SECONDS", 0.1)
        signature_id = uuid7()
        message_id = system.send(
            CreateProgram(program_id=uuid7(), signature_id=signature_id, name="n", adapter_type="mock")
        )
        rejected = system.event(MessageRejected, message_id)
        assert rejected.data.error.code == "not_found"
        assert str(signature_id) in rejected.data.error.message


class TestDuplicates:
    def test_a_message_that_comes_again_runs_nothing_and_tells_what_is_still_owed(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        execution_id, other = (system.execute(program_id, question="why") for _ in "ab")
        first = system.event(ExecutionCompleted, execution_id)
        system.event(ExecutionCompleted, other)
        assert wait_until(lambda: system.unsent() == set(), PATIENCE)
        entry = OutboxEntry(execution_id, system.ended(execution_id).lock_version)
        system.app.write(lambda connection: event_outbox.add(connection, [entry], 60))
        system.execute(program_id, execution_id, question="why")
        system.execute(program_id, other, question="why")
        assert wait_until(lambda: len(system.events_of(ExecutionCompleted, execution_id)) == 2, PATIENCE)
        again = system.events_of(ExecutionCompleted, execution_id)[1]
        assert (again.id, again.data) == (first.id, first.data)
        assert wait_until(lambda: system.unsent() == set(), PATIENCE)
        system.stop()
        assert len(system.events_of(ExecutionCompleted, other)) == 1
        assert len(system.scripted.runs) == 2

    def test_a_hundred_at_once(self, system: System) -> None:
        program_id = system.program(adapter="scripted")
        execution_id = uuid7()
        for _ in range(100):
            system.execute(program_id, execution_id, question="why")
        assert system.ended(execution_id).attempt == 1
        system.stop()
        assert len(system.scripted.runs) == 1

    def test_an_event_that_is_not_confirmed_is_sent_again(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1)
        program_id = system.program(adapter="scripted")
        refusals = [BrokerUnavailable("not now")] * 2

        def refuse(_key: str, _body: bytes) -> None:
            if refusals:
                raise refusals.pop()

        assert isinstance(system.app.publisher, MemoryPublisher)
        system.app.publisher._listeners.insert(0, refuse)
        execution_id = system.execute(program_id, question="why")
        assert system.event(ExecutionCompleted, execution_id).data.attempt == 1
        assert refusals == []
        assert wait_until(lambda: system.unsent() == set(), PATIENCE)
        assert len(system.scripted.runs) == 1
        assert system.rejected() == []
