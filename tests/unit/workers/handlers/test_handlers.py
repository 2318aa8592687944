"""What each command comes to, in one process: rows, events, rejections. The whole application, on SQLite, in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from adapters.port import AdapterError, Outcome
from deploy.processes import wait_until
from dspex import (
    CreateProgram,
    CreateSignature,
    ErrorCode,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionOptions,
    ExecutionStatus,
    InitializeProgram,
    MessageRejected,
    ProgramError,
    ProgramReady,
    Signature,
    Usage,
    uuid7,
    wrap,
)
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.contract.callback import Callback
from dspex.errors import BrokerUnavailable
from store import counters, event_outbox, executions
from store.event_outbox import OutboxEntry
from store.executions import Request
from tests.unit.system import PATIENCE, System
from workers.brokers.memory import MemoryPublisher

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request_of(program_id: UUID, **inputs: Any) -> Request:
    return Request(uuid7(), program_id, inputs, ExecutionOptions(), "/tests", TRACE)


class TestHappyPath:
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


class TestRelay:
    def test_an_expired_execution_is_run(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1)
        request = request_of(system.program(), question="why")
        system.lose(request)
        completed = system.event(ExecutionCompleted, request.id)
        assert completed.data.attempt == 2
        assert completed.traceparent == TRACE
        row = system.ended(request.id)
        assert (row.status, row.source, row.inputs) == (ExecutionStatus.COMPLETED, "/tests", {"question": "why"})

    def test_attempts_run_out(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1, max_attempts=1)
        request = request_of(system.program(adapter="scripted"), question="why")
        system.lose(request)
        failed = system.event(ExecutionFailed, request.id)
        assert failed.data.error.code == ErrorCode.ATTEMPTS_EXHAUSTED
        assert "DSPEX_MAX_ATTEMPTS" in failed.data.error.message
        assert failed.data.attempt == 1
        assert system.scripted.runs == []
        row = system.ended(request.id)
        assert [(entry.status, entry.attempt) for entry in row.timeline][-1] == ("failed", 1)
        assert row.attempt == 1  # of 1: the claim that ended it started nothing

    def test_what_is_too_large_to_be_sent_again_ends(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1, max_message_bytes=2048)
        program_id = system.program(adapter="scripted")
        large, small = request_of(program_id, question="x" * 2000), request_of(program_id, question="why")
        system.lose(large)
        system.lose(small)
        system.event(ExecutionCompleted, small.id)
        error = system.event(ExecutionFailed, large.id).data.error
        assert error.code == ErrorCode.INTERNAL
        assert "cannot be sent again" in error.message
        assert system.rejected() == []

    def test_a_long_execution_keeps_its_lease(self, start: Callable[..., System]) -> None:
        system = start(lease_seconds=1)
        let_end = threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            assert let_end.wait(PATIENCE)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        execution_id = system.execute(system.program(adapter="scripted"), question="why")
        leases: set[object] = set()

        def renewed() -> bool:
            with system.app.engine.connect() as connection:
                found = connection.exec_driver_sql("SELECT lease_expires_at FROM executions").scalars()
                leases.update(found)
            return len(leases) > 5  # longer than the lease, without a look at the clock

        assert wait_until(renewed, PATIENCE)
        let_end.set()
        row = system.ended(execution_id)
        assert (row.attempt, row.outputs) == (1, {"answer": "late"})
        assert len(system.scripted.runs) == 1


class TestCommitsInDoubt:
    """The commit arrives, and the connection breaks before the answer: the writer makes the same write again."""

    @pytest.mark.parametrize(("write", "attempt"), [("claim", 2), ("finish_and_read", 1)])
    def test_the_execution_ends_once(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch, write: str, attempt: int
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
        assert (row.status, row.attempt) == (ExecutionStatus.COMPLETED, attempt)
        assert doubts == []
        assert len(system.scripted.runs) == 1
        system.event(ExecutionCompleted, row.id)
        with system.app.engine.connect() as connection:
            assert counters.totals(connection, program_id).completed == 1


class TestStop:
    def test_what_runs_ends_and_what_waits_goes_back(self, start: Callable[..., System]) -> None:
        system = start(threads=2, prefetch=4)
        entered, let_end = threading.Semaphore(0), threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            entered.release()
            assert let_end.wait(PATIENCE)
            return Outcome({"answer": "late"})

        system.scripted.run = run
        program_id = system.program(adapter="scripted")
        ids = [system.execute(program_id, question=str(number)) for number in range(10)]
        for _ in range(2):
            assert entered.acquire(timeout=PATIENCE)
        stopping = threading.Thread(target=system.process.stop, args=(PATIENCE,))
        stopping.start()
        assert wait_until(lambda: system.process._intake._closed, PATIENCE)
        let_end.set()
        stopping.join(PATIENCE)
        ended = [execution_id for execution_id in ids if system.row(execution_id)]
        assert len(ended) == 2
        assert all(system.ended(execution_id).attempt == 1 for execution_id in ended)
        waiting = system.broker.queues[EXECUTIONS_QUEUE]._bodies
        assert [json.loads(body)["subject"] for body in waiting] == [str(i) for i in ids if i not in ended]
        system._stopped = True
        system.app.close()

    def test_what_does_not_end_is_given_back_and_spends_no_attempt(self, start: Callable[..., System]) -> None:
        first = start()
        entered, let_end, came_back = threading.Event(), threading.Event(), threading.Event()

        def run(inputs: Mapping[str, Any]) -> Outcome:
            entered.set()
            assert let_end.wait(PATIENCE)
            came_back.set()
            return Outcome({"answer": "too late"})

        first.scripted.run = run
        program_id = first.program(adapter="scripted")
        execution_id = first.execute(program_id, question="why")
        assert entered.wait(PATIENCE)
        first.stop(0)
        second = start(running=False)
        row = second.row(execution_id)
        assert row is not None
        assert (row.status, row.attempt) == (ExecutionStatus.PENDING, 0)
        assert not first.broker.queues[EXECUTIONS_QUEUE]._bodies  # its row says that it is due

        second.start()
        ended = second.ended(execution_id)
        let_end.set()
        assert came_back.wait(PATIENCE)
        assert (ended.attempt, ended.outputs) == (1, {"answer": "why"})
        assert second.row(execution_id) == ended

    def test_stop_while_the_database_is_away(
        self, start: Callable[..., System], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("workers.process.worker.RELEASE_SECONDS", 0.1)
        system = start()
        program_id = system.program(adapter="scripted")
        blocker = system.app.engine.raw_connection()
        blocker.cursor().execute("BEGIN IMMEDIATE")
        system.execute(program_id, question="why")
        assert wait_until(lambda: not system.broker.queues[EXECUTIONS_QUEUE]._bodies, PATIENCE)
        system.process.stop(0.1)
        blocker.cursor().execute("ROLLBACK")
        blocker.close()
        assert "were not given back" in caplog.text
        system._stopped = True
        system.app.close()


def test_ids_of_workers_are_their_own(start: Callable[..., System]) -> None:
    first, second = start(running=False), start(running=False)
    assert first.app.writes.lease.worker != second.app.writes.lease.worker
    assert len(first.app.writes.lease.worker) <= 128
    for system in (first, second):
        system._stopped = True
        system.app.close()
