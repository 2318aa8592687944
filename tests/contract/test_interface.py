"""The code interface, one suite: in process on SQLite and on PostgreSQL, and over RabbitMQ."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from dspex import (
    Configuration,
    DspexError,
    ExecuteProgram,
    ExecutionStatus,
    ProgramStatus,
    Signature,
    SignatureStatus,
    uuid7,
    wrap,
)
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE, EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from dspex.contract.callback import Callback
from dspex.contract.commands import ModuleVersion
from dspex.contract.results import RejectedMessageView
from dspex.contract.status import DeadLetterStatus
from tests.contract.interface import ARROW, SLOW, code_of, in_background, ready
from tests.waiting import wait_until
from workers.local import LocalClient


class TestSignatures:
    def test_a_draft_is_activated_once_then_deprecated_once(self, dspex: Interface) -> None:
        draft = dspex.create_signature("a -> b", activate=False)
        assert draft.status == SignatureStatus.DRAFT
        assert dspex.activate_signature(draft.signature_id).status == SignatureStatus.ACTIVE
        with pytest.raises(DspexError, match="Only draft signatures can be activated"):
            dspex.activate_signature(draft.signature_id)
        assert dspex.deprecate_signature(draft.signature_id).status == SignatureStatus.DEPRECATED
        assert code_of(lambda: dspex.deprecate_signature(draft.signature_id)) == "illegal_transition"

    def test_only_a_draft_can_be_updated(self, dspex: Interface) -> None:
        draft = dspex.create_signature("a -> b", activate=False)
        updated = dspex.update_signature(draft.signature_id, "a, c: int -> b")
        assert [field.name for field in updated.signature.inputs] == ["a", "c"]
        assert updated.lock_version == draft.lock_version + 1
        dspex.activate_signature(draft.signature_id)
        assert code_of(lambda: dspex.update_signature(draft.signature_id, "a -> b")) == "illegal_transition"

    def test_it_is_read_as_it_was_given(self, dspex: Interface) -> None:
        given = Signature.parse({"name": "qa", "arrow": ARROW, "instructions": "Be brief.", "version": "2.0.0-rc.1"})
        kept = dspex.create_signature(given)
        assert dspex.get_signature(kept.signature_id).signature == given
        assert kept.digest == given.digest

    def test_its_schemas_are_those_of_an_id_or_of_the_newest_active_one_of_a_name(self, dspex: Interface) -> None:
        name = f"described {uuid4().hex}"
        first, second = (dspex.create_signature({"name": name, "arrow": arrow}) for arrow in ("a -> b", ARROW))
        dspex.create_signature({"name": name, "arrow": "later -> b"}, activate=False)
        by_id, by_name = dspex.get_signature_schema(first.signature_id), dspex.get_signature_schema(name=name)
        assert (by_id.signature_id, by_id.inputs) == (first.signature_id, first.signature.input_schema())
        assert (by_name.signature_id, by_name.digest) == (second.signature_id, second.digest)
        assert by_name.inputs == second.signature.input_schema()
        assert by_name.outputs == second.signature.output_schema()
        assert code_of(lambda: dspex.get_signature_schema(name="no such name")) == "not_found"

    def test_one_that_is_used_is_not_destroyed_and_others_are(self, dspex: Interface) -> None:
        program = ready(dspex, f"used_{uuid4().hex} -> b")
        assert code_of(lambda: dspex.destroy_signature(program.signature_id)) == "illegal_transition"
        unused = dspex.create_signature("a -> b")
        dspex.destroy_signature(unused.signature_id)
        assert code_of(lambda: dspex.get_signature(unused.signature_id)) == "not_found"

    def test_lists_are_filtered_and_come_in_pages_newest_first(self, dspex: Interface) -> None:
        name = f"listed {uuid4().hex}"
        made = [dspex.create_signature({"name": name, "arrow": "a -> b"}).signature_id for _ in range(5)]
        seen: list[UUID] = []
        cursor = None
        while True:
            page = dspex.list_signatures(name=name, status=SignatureStatus.ACTIVE, limit=2, cursor=cursor)
            seen += [item.signature_id for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == made[::-1]
        assert set(made) <= {item.signature_id for item in dspex.list_active_signatures()}
        assert not dspex.list_signatures(name=name, status=SignatureStatus.DRAFT).items
        assert code_of(lambda: dspex.list_signatures(cursor="nonsense")) == "invalid_values"

    def test_versions_of_a_module_coexist_and_are_compared(self, dspex: Interface) -> None:
        module = f"tests.m{uuid4().hex}"
        old = dspex.create_signature({"module": module, "version": "1.0.0", "arrow": "a -> b"})
        new = dspex.create_signature({"module": module, "version": "1.1.0", "arrow": "a, k: int = 1 -> b, c"})
        assert old.compatibility is None
        assert new.compatibility is not None
        assert {change.field for change in new.compatibility.changes} == {"k", "c"}
        worse = dspex.create_signature({"module": module, "version": "2.0.0", "arrow": "a, k: int -> c"})
        again = {"module": module, "version": "1.0.0", "arrow": "other -> b"}
        assert code_of(lambda: dspex.create_signature(again)) == "conflict"
        assert dspex.compare_signatures(old.signature_id, new.signature_id).compatible
        breaking = dspex.compare_signatures(old.signature_id, worse.signature_id)
        assert not breaking.compatible
        assert {change.field for change in breaking.changes if not change.compatible} == {"k", "b"}

    def test_a_module_outside_the_allow_list_is_refused(self, dspex: Interface) -> None:
        assert dspex.validate_module("json.decoder") is False
        assert code_of(lambda: dspex.create_signature_from_module("json.decoder:JSONDecoder")) == "module_not_allowed"


class TestPrograms:
    def test_it_is_created_with_its_signature_and_initialized_once(self, dspex: Interface) -> None:
        program = ready(dspex)
        assert (program.status, program.adapter_type) == (ProgramStatus.READY, "mock")
        assert program.backend_id is not None
        assert program.backend_id.startswith("mock-")
        assert dspex.initialize_program(program.program_id) == program

    def test_the_same_content_finds_the_same_signature(self, dspex: Interface) -> None:
        arrow = f"found_{uuid4().hex} -> b"
        first, second = (dspex.create_program("one", arrow, adapter_type="mock") for _ in range(2))
        assert first.signature_id == second.signature_id
        third = dspex.create_program("three", first.signature_id, adapter_type="mock")
        assert third.signature_id == first.signature_id

    def test_a_signature_is_found_by_module_and_version(self, dspex: Interface) -> None:
        module = f"tests.m{uuid4().hex}"
        made = [
            dspex.create_signature({"module": module, "version": v, "arrow": "a -> b"}).signature_id
            for v in ("1.9.0", "1.10.0")
        ]
        newest = dspex.create_program("p", ModuleVersion(module=module), adapter_type="mock")
        older = dspex.create_program("p", ModuleVersion(module=module, version="1.9.0"), adapter_type="mock")
        assert [older.signature_id, newest.signature_id] == made
        missing = ModuleVersion(module=module, version="3.0.0")
        assert code_of(lambda: dspex.create_program("p", missing, adapter_type="mock")) == "not_found"

    def test_one_that_cannot_be_built_says_why_and_its_executions_do_too(self, dspex: Interface) -> None:
        unknown = Configuration(parameters={"latency": 1})
        program = dspex.create_program("broken", ARROW, adapter_type="mock", configuration=unknown)
        program = dspex.initialize_program(program.program_id)
        assert program.status == ProgramStatus.ERROR
        assert program.error is not None
        assert "latency" in program.error.message
        failed = dspex.execute_program(program.program_id, {"question": "?"})
        assert failed.error is not None
        assert failed.error.code == "program_not_ready"
        assert "error" in failed.error.message
        assert "latency" in failed.error.message
        mended = dspex.update_program(program.program_id, Configuration())
        assert dspex.initialize_program(mended.program_id).status == ProgramStatus.READY

    def test_a_new_configuration_is_a_new_backend_id_unless_somebody_was_faster(self, dspex: Interface) -> None:
        program = ready(dspex)
        changed = dspex.update_program(
            program.program_id, Configuration(module="ChainOfThought"), lock_version=program.lock_version
        )
        assert changed.status == ProgramStatus.READY
        assert changed.backend_id != program.backend_id
        late = Configuration(module="ReAct")
        stale = program.lock_version
        assert code_of(lambda: dspex.update_program(program.program_id, late, lock_version=stale)) == "conflict"
        assert dspex.execute_program(program.program_id, {"question": "?"}).backend_id == changed.backend_id

    def test_an_archived_one_takes_no_executions_and_can_be_destroyed(self, dspex: Interface) -> None:
        program = ready(dspex)
        dspex.execute_program(program.program_id, {"question": "?"})
        assert code_of(lambda: dspex.destroy_program(program.program_id)) == "illegal_transition"
        assert dspex.archive_program(program.program_id).status == ProgramStatus.ARCHIVED
        refused = dspex.execute_program(program.program_id, {"question": "again?"})
        assert refused.error is not None
        assert "archived" in refused.error.message
        dspex.destroy_program(program.program_id)
        assert code_of(lambda: dspex.get_program(program.program_id)) == "not_found"

    def test_an_archived_one_is_restored_as_it_was(self, dspex: Interface) -> None:
        program = ready(dspex)
        assert code_of(lambda: dspex.restore_program(program.program_id)) == "illegal_transition"
        dspex.archive_program(program.program_id)
        restored = dspex.restore_program(program.program_id)
        assert (restored.status, restored.backend_id) == (ProgramStatus.READY, program.backend_id)
        assert dspex.execute_program(program.program_id, {"question": "?"}).status == ExecutionStatus.COMPLETED
        draft = dspex.create_program("draft", "question -> answer", adapter_type="mock")
        dspex.archive_program(draft.program_id)
        assert dspex.restore_program(draft.program_id).status == ProgramStatus.DRAFT
        assert code_of(lambda: dspex.restore_program(uuid4())) == "not_found"

    def test_lists_are_filtered(self, dspex: Interface) -> None:
        program = ready(dspex, f"in_{uuid4().hex} -> b")
        by_signature = dspex.list_programs(signature_id=program.signature_id)
        assert [item.program_id for item in by_signature.items] == [program.program_id]
        assert not dspex.list_programs(signature_id=program.signature_id, status=ProgramStatus.DRAFT).items


class TestExecutions:
    def test_inputs_become_outputs_and_a_timeline(self, dspex: Interface) -> None:
        program = ready(dspex)
        execution = dspex.execute_program(program.program_id, {"question": "why?"})
        assert execution.status == ExecutionStatus.COMPLETED
        assert execution.outputs is not None
        assert set(execution.outputs) == {"answer", "score"}
        assert execution.backend_id == program.backend_id
        assert [step.status for step in execution.timeline] == ["running", "completed"]
        assert execution.requested_at is not None
        assert execution.usage.calls == 1
        assert dspex.get_execution(execution.execution_id) == execution

    def test_the_same_id_runs_once_and_another_body_is_a_conflict(self, dspex: Interface) -> None:
        program = ready(dspex)
        execution_id = uuid7()
        first = dspex.execute_program(program.program_id, {"question": "1"}, execution_id=execution_id)
        second = dspex.execute_program(program.program_id, {"question": "1"}, execution_id=execution_id)
        assert first == second
        other = {"question": "2"}
        assert (
            code_of(lambda: dspex.execute_program(program.program_id, other, execution_id=execution_id)) == "conflict"
        )
        assert dspex.get_stats(program.program_id).execution_count == 1

    def test_every_wrong_input_is_named_and_leaves_a_row(self, dspex: Interface) -> None:
        program = ready(dspex)
        wrong = {"question": 1, "k": "3", "extra": True}
        failed = dspex.execute_program(program.program_id, wrong, validate=False)
        assert failed.status == ExecutionStatus.FAILED
        assert failed.error is not None
        assert failed.error.code == "invalid_input"
        assert {problem.field for problem in failed.error.problems} == {"question", "k", "extra"}
        assert dspex.get_execution(failed.execution_id).status == ExecutionStatus.FAILED

    def test_an_execution_of_no_program_is_refused(self, dspex: Interface) -> None:
        assert code_of(lambda: dspex.execute_program(uuid4(), {"question": "?"})) == "not_found"

    def test_a_running_one_is_cancelled_and_its_adapter_stops(self, dspex: Interface) -> None:
        program = ready(dspex, configuration=SLOW)
        execution_id = uuid7()
        thread, answers = in_background(
            lambda: dspex.execute_program(program.program_id, {"question": "?"}, execution_id=execution_id)
        )
        running = {"program_id": program.program_id, "status": ExecutionStatus.RUNNING}
        wait_until(lambda: bool(dspex.list_executions(**running).items), "it runs")
        asked = dspex.cancel_execution(execution_id)
        assert asked.cancel_requested
        thread.join(timeout=20)
        assert [answer.status for answer in answers] == [ExecutionStatus.CANCELLED]
        assert answers[0].outputs is None
        assert code_of(lambda: dspex.cancel_execution(execution_id)) == "illegal_transition"
        statistics = dspex.get_program_statistics(program.program_id)
        assert (statistics.total, statistics.cancelled) == (1, 1)

    def test_lists_are_filtered_by_program_status_error_and_time(self, dspex: Interface) -> None:
        program = ready(dspex)
        begun = datetime.now(UTC) - timedelta(minutes=1)
        good = [dspex.execute_program(program.program_id, {"question": str(n)}).execution_id for n in range(3)]
        bad = dspex.execute_program(program.program_id, {}, validate=False).execution_id

        def ids(**filters: Any) -> list[UUID]:
            page = dspex.list_executions(program_id=program.program_id, **filters)
            return [item.execution_id for item in page.items]

        assert ids() == [bad, *good[::-1]]
        assert ids(limit=2) == [bad, good[2]]
        assert ids(status=ExecutionStatus.COMPLETED) == good[::-1]
        assert ids(error_code="invalid_input") == [bad]
        assert ids(since=begun) == [bad, *good[::-1]]
        assert ids(until=begun) == []
        assert bad in {item.execution_id for item in dspex.recent_executions()}


class TestDeadExecutions:
    def test_one_that_failed_runs_again_under_its_id(self, dspex: Interface) -> None:
        program = dspex.create_program("late", ARROW, adapter_type="mock")
        failed = dspex.execute_program(program.program_id, {"question": "?"})
        assert failed.error is not None
        assert failed.error.code == "program_not_ready"
        assert dspex.list_dead_executions(program_id=program.program_id).items == (failed,)
        dspex.initialize_program(program.program_id)
        assert dspex.replay_executions([failed.execution_id]).count == 1
        wait_until(lambda: ended(dspex, failed.execution_id), "it ran again")
        completed = dspex.get_execution(failed.execution_id)
        assert (completed.status, completed.error) == (ExecutionStatus.COMPLETED, None)
        assert [step.status for step in completed.timeline][:3] == [
            *[step.status for step in failed.timeline],
            "pending",
        ]
        assert dspex.list_dead_executions(program_id=program.program_id).items == ()
        assert dspex.replay_executions([failed.execution_id, uuid4()]).count == 0
        figures = dspex.get_program_statistics(program.program_id)
        assert (figures.total, figures.successful, figures.failed) == (1, 1, 0)

    def test_a_filter_chooses_and_what_is_discarded_is_taken_by_its_id_alone(self, dspex: Interface) -> None:
        program = ready(dspex)
        begun = datetime.now(UTC) - timedelta(minutes=1)
        ids = [dspex.execute_program(program.program_id, {"k": n}, validate=False).execution_id for n in range(3)]
        mine: dict[str, Any] = {"program_id": program.program_id}
        assert dspex.discard_executions(**mine, error_code="auth").count == 0
        assert dspex.discard_executions(**mine, until=begun).count == 0
        assert dspex.discard_executions(ids[:1]).count == 1
        assert dspex.get_execution(ids[0]).discarded
        assert dspex.replay_executions(**mine, error_code="invalid_input", since=begun).count == 2
        wait_until(lambda: len(dspex.list_dead_executions(**mine).items) == 2, "they failed again")
        assert dspex.discard_executions(**mine).count == 2
        assert dspex.replay_executions(**mine).count == 0
        everything = dspex.list_executions(**mine, discarded=True)
        assert [item.execution_id for item in everything.items] == ids[::-1]
        assert dspex.replay_executions(ids[:1]).count == 1
        wait_until(lambda: ended(dspex, ids[0]), "it failed again")
        assert dspex.get_program_statistics(program.program_id).failed == 3


class TestRejectedMessages:
    def test_one_is_sent_again_and_carried_out(self, dspex: Interface) -> None:
        command = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={"question": "?"})
        envelope = wrap(command, source="/tests")
        send(dspex, envelope.encode(), command.type)
        letter = dead_message(dspex, message_id=envelope.id)
        assert (letter.error.code, letter.queue, letter.message_type) == ("not_found", EXECUTIONS_QUEUE, command.type)
        assert (letter.body.encode(), letter.body_encoding) == (envelope.encode(), "utf-8")
        assert dspex.get_rejected_message(letter.rejection_id) == letter
        assert dspex.replay_messages([letter.rejection_id]).count == 1
        wait_until(lambda: dspex.get_rejected_message(letter.rejection_id).deliveries == 2, "it is rejected again")
        program = dspex.create_program("late", ARROW, adapter_type="mock", program_id=command.program_id)
        dspex.initialize_program(program.program_id)
        assert dspex.replay_messages(queue=EXECUTIONS_QUEUE, since=letter.inserted_at).count == 1
        wait_until(lambda: ended(dspex, command.execution_id), "it was carried out")
        assert dspex.get_execution(command.execution_id).status == ExecutionStatus.COMPLETED
        replayed = dspex.get_rejected_message(letter.rejection_id)
        assert (replayed.status, replayed.deliveries) == (DeadLetterStatus.REPLAYED, 2)

    def test_one_that_is_no_command_is_refused_and_can_be_discarded(self, dspex: Interface) -> None:
        body = uuid4().bytes + b"\x00\xff"
        send(dspex, body, "dspex.nothing")
        letter = dead_message(dspex, queue=PROGRAMS_QUEUE)
        assert (letter.error.code, base64.b64decode(letter.body)) == ("malformed_message", body)
        with pytest.raises(DspexError, match=rf"{letter.rejection_id}: the body is not JSON"):
            dspex.replay_messages([letter.rejection_id])
        mine: dict[str, Any] = {"queue": PROGRAMS_QUEUE, "since": letter.inserted_at}
        assert dspex.replay_messages(**mine).refused == 1
        assert dspex.discard_messages([letter.rejection_id]).count == 1
        assert dspex.discard_messages(**mine).count == 0
        assert dspex.get_rejected_message(letter.rejection_id).status == DeadLetterStatus.DISCARDED
        assert dspex.list_dead_messages(**mine).items == ()
        assert code_of(lambda: dspex.get_rejected_message(uuid4())) == "not_found"


def ended(dspex: Interface, execution_id: UUID) -> bool:
    return any(
        item.execution_id == execution_id and item.status.terminal for item in dspex.list_executions(limit=10).items
    )


def send(dspex: Interface, body: bytes, routing_key: str) -> None:
    """Publish a message that nobody waits for the answer of."""
    assert isinstance(dspex, LocalClient | RemoteClient)
    publisher: Publisher = dspex._app.publisher if isinstance(dspex, LocalClient) else dspex._publisher
    publisher.publish(Publication(body, exchange=COMMANDS_EXCHANGE, routing_key=routing_key))


def dead_message(dspex: Interface, message_id: str | None = None, **filters: Any) -> RejectedMessageView:
    """The newest dead letter, once it is there."""

    def found() -> list[RejectedMessageView]:
        return [item for item in dspex.list_dead_messages(**filters).items if item.message_id == message_id]

    wait_until(lambda: bool(found()), "it is rejected")
    return found()[0]


class TestWebhooks:
    """What is asked of them; `tests/unit/workers/webhooks/test_deliverer.py` is about what is sent."""

    callback = Callback(url="https://receiver.example/hook", secret="A_WEBHOOK_SECRET", events=("failed",))

    def test_an_endpoint_has_a_life(self, dspex: Interface) -> None:
        made = dspex.register_endpoint(self.callback)
        assert dspex.register_endpoint(self.callback, endpoint_id=made.endpoint_id) == made
        assert dspex.get_endpoint(made.endpoint_id) == made
        assert (made.callback, made.registered, made.enabled) == (self.callback, True, True)
        other = self.callback.model_copy(update={"thin": True})
        assert code_of(lambda: dspex.register_endpoint(other, endpoint_id=made.endpoint_id)) == "conflict"
        changed = dspex.update_endpoint(made.endpoint_id, other, lock_version=made.lock_version)
        assert changed.callback == other
        stale = made.lock_version
        assert code_of(lambda: dspex.update_endpoint(made.endpoint_id, other, lock_version=stale)) == "conflict"
        rotated = dspex.rotate_secret(made.endpoint_id, "B_WEBHOOK_SECRET", overlap=60)
        assert (rotated.callback.secret, rotated.previous_secret) == ("B_WEBHOOK_SECRET", "A_WEBHOOK_SECRET")
        assert not dspex.disable_endpoint(made.endpoint_id).enabled
        assert made.endpoint_id in {item.endpoint_id for item in dspex.list_endpoints(enabled=False).items}
        assert dspex.enable_endpoint(made.endpoint_id).enabled
        dspex.delete_endpoint(made.endpoint_id)
        assert code_of(lambda: dspex.get_endpoint(made.endpoint_id)) == "not_found"

    def test_what_cannot_be_a_callback_is_refused_at_once(self, dspex: Interface) -> None:
        forbidden = Callback(url="https://127.0.0.1/", secret="A_WEBHOOK_SECRET")
        program = ready(dspex)
        for ask in (
            lambda: dspex.register_endpoint(forbidden),
            lambda: dspex.create_program("p", ARROW, adapter_type="mock", callback=forbidden),
            lambda: dspex.update_program(program.program_id, program.configuration, callback=forbidden),
            lambda: dspex.execute_program(program.program_id, {"question": "?"}, callback=forbidden),
        ):
            assert code_of(ask) == "forbidden_address"

    def test_the_log_says_what_is_to_be_delivered(self, dspex: Interface) -> None:
        program = ready(dspex, callback=self.callback)
        assert dspex.get_program(program.program_id).callback == self.callback
        good = dspex.execute_program(program.program_id, {"question": "?"})
        assert (good.callback, dspex.list_deliveries(execution_id=good.execution_id).items) == (self.callback, ())
        # Of no name that there is: it is tried, fails, and stays.
        own = self.callback.model_copy(update={"url": "https://receiver.invalid/"})
        bad = dspex.execute_program(program.program_id, {}, callback=own, validate=False)
        (delivery,) = dspex.list_deliveries(execution_id=bad.execution_id).items
        assert (delivery.event, delivery.host, delivery.status) == ("failed", "receiver.invalid:443", "pending")
        assert dspex.get_delivery(delivery.delivery_id).event_id == delivery.event_id
        assert dspex.replay_deliveries(execution_id=bad.execution_id) == 0
        dspex.disable_endpoint(delivery.endpoint_id)
        assert dspex.list_deliveries(status="failed", endpoint_id=delivery.endpoint_id).items
        dspex.enable_endpoint(delivery.endpoint_id)
        assert dspex.replay_deliveries(delivery.delivery_id) == 1
        assert code_of(lambda: dspex.replay_deliveries(uuid7())) == "not_found"


class TestStatistics:
    def test_three_runs_are_counted(self, dspex: Interface) -> None:
        program = ready(dspex)
        for number in range(2):
            dspex.execute_program(program.program_id, {"question": str(number)})
        dspex.execute_program(program.program_id, {}, validate=False)
        stats = dspex.get_stats(program.program_id)
        assert stats.execution_count == 3
        assert stats.last_executed_at is not None
        all_time = dspex.get_program_statistics(program.program_id)
        window = dspex.get_program_statistics(program.program_id, since=datetime.now(UTC) - timedelta(hours=1))
        for figures in (all_time, window):
            assert (figures.total, figures.successful, figures.failed, figures.cancelled) == (3, 2, 1, 0)
            assert figures.success_rate == pytest.approx(2 / 3)
            assert figures.average_duration_ms is not None
            assert figures.p50_duration_ms is not None
            assert figures.p95_duration_ms is not None
            assert figures.input_tokens > 0
            assert (figures.tokens_known, figures.cost_known) == (3, 3)
        before = dspex.get_program_statistics(program.program_id, until=datetime.now(UTC) - timedelta(hours=1))
        assert (before.total, before.success_rate, before.p95_duration_ms) == (0, None, None)
        assert code_of(lambda: dspex.get_stats(uuid4())) == "not_found"

    def test_executions_are_counted_by_status(self, dspex: Interface) -> None:
        program = ready(dspex)
        for question in ({"question": "1"}, {"question": "2"}, {}):
            dspex.execute_program(program.program_id, question, validate=False)
        began = dspex.get_execution(dspex.list_executions(program_id=program.program_id).items[-1].execution_id)
        counts = dspex.count_executions(program.program_id)
        assert (counts.completed, counts.failed, counts.cancelled) == (2, 1, 0)
        assert (counts.pending, counts.running) == (0, 0)
        assert (counts.complete, counts.oldest) == (True, began.inserted_at)
        wrong = dspex.count_executions(program.program_id, error_code="invalid_input", since=began.inserted_at)
        assert (wrong.completed, wrong.failed) == (0, 1)
        assert dspex.count_executions(program.program_id, until=began.inserted_at).oldest is None
        assert dspex.count_executions(since=began.inserted_at).completed >= 2
        assert code_of(lambda: dspex.count_executions(uuid4())) == "not_found"
        later, sooner = began.inserted_at + timedelta(hours=1), began.inserted_at
        assert code_of(lambda: dspex.count_executions(since=later, until=sooner)) == "invalid_values"

    def test_quick_execute_goes_the_whole_way(self, dspex: Interface) -> None:
        outputs = dspex.quick_execute(ARROW, {"question": "why?"})
        assert outputs == dspex.quick_execute(ARROW, {"question": "why?"})
        assert set(outputs) == {"answer", "score"}
        assert code_of(lambda: dspex.quick_execute(ARROW, {})) == "invalid_input"
        assert code_of(lambda: dspex.quick_execute(ARROW, {"question": "?"}, adapter_type="none_such")) == "permanent"
