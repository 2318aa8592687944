"""External executions, which a service runs itself and marks: one suite, in process on both databases, and remote."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import JsonValue

from dspex import Configuration, DspexError, ErrorCode, ExecutionStatus, uuid7, wrap
from dspex.amqp.publication import Publication
from dspex.amqp.publisher import Publisher
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.client.interface import Interface
from dspex.client.remote import RemoteClient
from dspex.contract.external import MarkCompleted
from dspex.contract.results import ExecutionView
from tests.contract.interface import code_of, ready
from tests.waiting import wait_until
from workers.local import LocalClient

INPUTS = {"question": "why?"}
OUTPUTS: dict[str, JsonValue] = {"answer": "because", "score": 0.5}
END = (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


@pytest.fixture(scope="module")
def program_id(dspex: Interface) -> UUID:
    return ready(dspex, configuration=Configuration(extra_outputs=("reasoning",))).program_id


def begun(dspex: Interface, program_id: UUID, **options: Any) -> ExecutionView:
    """One that is marked running."""
    created = dspex.create_execution(program_id, INPUTS, **options)
    return dspex.mark_running(created.execution_id, created.lock_version)


def message_of(call: Any) -> str:
    with pytest.raises(DspexError) as raised:
        call()
    return raised.value.message


def test_the_whole_way(dspex: Interface, program_id: UUID) -> None:
    created = dspex.create_execution(program_id, INPUTS, metadata={"batch": "7"})
    id_ = created.execution_id
    assert (created.status, created.attempt, created.lock_version) == (ExecutionStatus.PENDING, 0, 1)
    assert (created.external, created.inputs, created.metadata) == (True, INPUTS, {"batch": "7"})
    running = dspex.mark_running(id_, 1, expires_in=60)
    assert (running.status, running.attempt, running.lock_version) == (ExecutionStatus.RUNNING, 1, 2)
    assert running.worker is not None
    assert running.worker.startswith("external:")
    done = dspex.mark_completed(
        id_,
        2,
        OUTPUTS,
        extra_outputs={"reasoning": "since it is so"},
        usage={"calls": 2, "input_tokens": 30, "output_tokens": 4, "cost": 0.25},
        duration_ms=12.5,
    )
    assert (done.status, done.outputs, done.lock_version) == (ExecutionStatus.COMPLETED, OUTPUTS, 3)
    assert (done.extra_outputs, done.duration_ms, done.attempt) == ({"reasoning": "since it is so"}, 12.5, 1)
    assert (done.usage.calls, done.usage.input_tokens, done.usage.cost) == (2, 30, 0.25)
    assert [entry.status for entry in done.timeline] == ["pending", "running", "completed"]
    assert dspex.get_execution(id_) == done
    assert dspex.handle(id_).result(timeout=10) == OUTPUTS


def test_what_failed_has_its_error_and_is_not_run_again(dspex: Interface, program_id: UUID) -> None:
    running = begun(dspex, program_id)
    url = "amqp://me:secret@host/"
    failed = dspex.mark_failed(running.execution_id, 2, "auth", f"no way to {url}\nat all \x1b")
    assert failed.status == ExecutionStatus.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("auth", "no way to amqp://me:***@host/\\nat all \\x1b")
    assert failed.duration_ms is not None
    assert 0 <= failed.duration_ms < 60_000
    assert dspex.replay_executions([running.execution_id]).count == 0
    assert dspex.discard_executions([running.execution_id]).count == 1
    assert dspex.get_execution(running.execution_id).status == ExecutionStatus.FAILED


def test_the_statistics_are_the_rows_and_what_is_not_told_is_not_known(dspex: Interface) -> None:
    program = ready(dspex).program_id
    one, two, three = (begun(dspex, program).execution_id for _ in range(3))
    dspex.mark_completed(one, 2, OUTPUTS, usage={"calls": 1, "input_tokens": 30, "output_tokens": 4, "cost": 0.5})
    dspex.mark_completed(two, 2, OUTPUTS)
    dspex.mark_failed(three, 2, "transient", "it is away", usage={"calls": 1})
    found = dspex.get_program_statistics(program)
    assert (found.total, found.successful, found.failed) == (3, 2, 1)
    assert (found.input_tokens, found.output_tokens, found.cost) == (30, 4, 0.5)
    assert (found.tokens_known, found.cost_known) == (1, 1)
    assert dspex.count_executions(program).completed == 2


def test_no_worker_runs_it_whatever_is_sent(dspex: Interface, program_id: UUID) -> None:
    created = dspex.create_execution(program_id, INPUTS, idempotency_key=f"key {uuid4()}")
    id_ = created.execution_id
    assert code_of(lambda: dspex.execute_program(program_id, INPUTS, execution_id=id_, timeout=10)) == "conflict"
    running = dspex.mark_running(id_, 1)
    assert code_of(lambda: dspex.execute_program(program_id, INPUTS, execution_id=id_, timeout=10)) == "conflict"
    assert dspex.get_execution(id_) == running


def test_its_idempotency_key_is_no_workers(dspex: Interface, program_id: UUID) -> None:
    key = f"key {uuid4()}"
    created = dspex.create_execution(program_id, INPUTS, idempotency_key=key)
    assert dspex.create_execution(program_id, INPUTS, idempotency_key=key) == created
    assert dspex.get_execution(idempotency_key=key) == created
    again = lambda: dspex.execute_program(program_id, INPUTS, idempotency_key=key, timeout=10)  # noqa: E731
    assert code_of(again) == "conflict"
    assert code_of(lambda: dspex.create_execution(program_id, {"question": "how?"}, idempotency_key=key)) == "conflict"


def test_created_twice_is_created_once(dspex: Interface, program_id: UUID) -> None:
    id_ = uuid7()
    created = dspex.create_execution(program_id, INPUTS, execution_id=id_)
    assert dspex.create_execution(program_id, INPUTS, execution_id=id_) == created
    assert code_of(lambda: dspex.create_execution(program_id, {"question": "?"}, execution_id=id_)) == "conflict"
    dspex.mark_running(id_, 1)
    dspex.mark_completed(id_, 2, OUTPUTS)
    assert dspex.create_execution(program_id, INPUTS, execution_id=id_).status == ExecutionStatus.COMPLETED


def test_what_a_worker_runs_cannot_be_marked(dspex: Interface, program_id: UUID) -> None:
    done = dspex.execute_program(program_id, INPUTS)
    assert not done.external
    marks = (
        lambda version: dspex.mark_running(done.execution_id, version),
        lambda version: dspex.mark_completed(done.execution_id, version, OUTPUTS),
        lambda version: dspex.mark_failed(done.execution_id, version, "permanent", "so"),
    )
    for mark in marks:
        for version in (1, done.lock_version):
            text = message_of(lambda mark=mark, version=version: mark(version))
            assert "is run by workers: only what create_execution made can be marked" in text
    assert dspex.get_execution(done.execution_id) == done


def test_a_stale_version_is_a_conflict_that_tells_the_current_one(dspex: Interface, program_id: UUID) -> None:
    id_ = dspex.create_execution(program_id, INPUTS).execution_id
    dspex.mark_running(id_, 1)
    for mark in (
        lambda: dspex.mark_running(id_, 1),
        lambda: dspex.mark_completed(id_, 1, OUTPUTS),
        lambda: dspex.mark_failed(id_, 3, "permanent", "so"),
    ):
        assert code_of(mark) == "conflict"
        assert message_of(mark).endswith("it is 2")
    dspex.mark_completed(id_, 2, OUTPUTS)
    for mark in (lambda: dspex.mark_running(id_, 2), lambda: dspex.mark_failed(id_, 3, "permanent", "so")):
        assert code_of(mark) == "conflict"
        assert "is completed (lock_version 3)" in message_of(mark)


def test_the_same_mark_again_is_the_same_mark(dspex: Interface, program_id: UUID) -> None:
    id_ = dspex.create_execution(program_id, INPUTS).execution_id
    begin, end = uuid4(), uuid4()
    running = dspex.mark_running(id_, 1, mark=begin)
    assert dspex.mark_running(id_, 1, mark=begin) == running
    dspex.mark_running(id_, 2)
    assert dspex.mark_running(id_, 1, mark=begin).lock_version == 2
    assert code_of(lambda: dspex.mark_running(id_, 1, mark=begin, expires_in=7)) == "conflict"
    done = dspex.mark_completed(id_, 2, OUTPUTS, mark=end)
    assert dspex.mark_completed(id_, 2, OUTPUTS, mark=end) == done
    assert code_of(lambda: dspex.mark_completed(id_, 2, OUTPUTS | {"score": 1.0}, mark=end)) == "conflict"
    assert code_of(lambda: dspex.mark_completed(id_, 2, OUTPUTS)) == "conflict"


def test_a_renewal_keeps_the_version_and_the_time_of_the_begin(dspex: Interface, program_id: UUID) -> None:
    running = begun(dspex, program_id)
    renewed = dspex.mark_running(running.execution_id, 2, expires_in=600)
    assert (renewed.lock_version, renewed.attempt) == (2, 1)
    assert (renewed.executed_at, renewed.timeline) == (running.executed_at, running.timeline)


def test_only_what_runs_can_end(dspex: Interface, program_id: UUID) -> None:
    created = dspex.create_execution(program_id, INPUTS)
    assert code_of(lambda: dspex.mark_completed(created.execution_id, 1, OUTPUTS)) == "illegal_transition"
    assert "mark it running first" in message_of(lambda: dspex.mark_failed(created.execution_id, 1, "auth", "no"))
    assert dspex.get_execution(created.execution_id) == created


def test_outputs_that_do_not_fit_are_refused_and_it_runs_on(dspex: Interface, program_id: UUID) -> None:
    running = begun(dspex, program_id)
    id_ = running.execution_id
    wrong: list[dict[str, Any]] = [{"answer": "a"}, {"more": 1}, {"answer": 1}, {"answer": "\x00"}]
    for outputs in (wrong[0], *(OUTPUTS | other for other in wrong[1:])):
        # Over the broker, U+0000 is refused before.
        code = code_of(lambda outputs=outputs: dspex.mark_completed(id_, 2, outputs))  # type: ignore[misc]
        assert code in ("invalid_output", "invalid_message")
    unasked = lambda: dspex.mark_completed(id_, 2, OUTPUTS, extra_outputs={"sources": []})  # noqa: E731
    assert code_of(unasked) == "invalid_output"
    assert "extra_outputs.sources: the program does not ask for it" in message_of(unasked)
    assert dspex.get_execution(id_) == running
    long = "x" * 100_000
    done = dspex.mark_completed(id_, 2, OUTPUTS, extra_outputs={"reasoning": long})
    assert done.extra_outputs == {"reasoning": {"$cut": "x" * 1_000, "bytes": 100_002}}


def test_inputs_that_do_not_fit_are_refused(dspex: Interface, program_id: UUID) -> None:
    id_ = uuid7()
    assert code_of(lambda: dspex.create_execution(program_id, {"k": "x"}, execution_id=id_)) == "invalid_input"
    assert code_of(lambda: dspex.get_execution(id_)) == "not_found"
    assert code_of(lambda: dspex.create_execution(uuid7(), INPUTS)) == "not_found"
    assert code_of(lambda: dspex.mark_running(uuid7(), 1)) == "not_found"
    assert code_of(lambda: dspex.mark_completed(uuid7(), 2, OUTPUTS)) == "not_found"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"duration_ms": -1.0}, "duration_ms"),
        ({"duration_ms": 1e300}, "duration_ms"),
        ({"usage": {"input_tokens": 10**30}}, "usage.input_tokens"),
        ({"usage": {"cost": -0.5}}, "usage.cost"),
        ({"usage": {"lm_calls": []}}, "usage.lm_calls"),
        ({"code": "cancelled"}, "code"),
        ({"code": "lease_expired"}, "code"),
        ({"code": "my_own"}, "code"),
        ({"message": ""}, "message"),
        ({"message": "x" * 2_001}, "message"),
        ({"lock_version": 0}, "lock_version"),
    ],
)
def test_what_no_mark_has_is_refused_by_name(dspex: Interface, arguments: dict[str, Any], named: str) -> None:
    given: dict[str, Any] = {"lock_version": 2, "code": ErrorCode.PERMANENT, "message": "so"} | arguments
    fail = lambda: dspex.mark_failed(uuid7(), **given)  # noqa: E731
    assert code_of(fail) == "invalid_values"
    assert message_of(fail).startswith(f"{named}: ")


def test_a_cancel_ends_it_at_once_and_the_next_mark_tells(dspex: Interface, program_id: UUID) -> None:
    pending, running = dspex.create_execution(program_id, INPUTS), begun(dspex, program_id)
    for one in (pending, running):
        ended = dspex.cancel_execution(one.execution_id)
        assert (ended.status, ended.lock_version) == (ExecutionStatus.CANCELLED, one.lock_version + 1)
        mark = lambda one=one: dspex.mark_running(one.execution_id, one.lock_version)  # noqa: E731
        assert code_of(mark) == "conflict"
        assert "is cancelled" in message_of(mark)
    late = lambda: dspex.mark_completed(running.execution_id, 2, OUTPUTS)  # noqa: E731
    assert code_of(late) == "conflict"


def test_an_archived_program_takes_none_and_what_runs_ends(dspex: Interface) -> None:
    program = ready(dspex)
    running = begun(dspex, program.program_id)
    dspex.archive_program(program.program_id)
    assert code_of(lambda: dspex.create_execution(program.program_id, INPUTS)) == "illegal_transition"
    done = dspex.mark_completed(running.execution_id, 2, OUTPUTS)
    assert done.status == ExecutionStatus.COMPLETED


def test_a_program_that_was_never_built_has_them_too(dspex: Interface) -> None:
    draft = dspex.create_program("a draft", "question -> answer", adapter_type="mock")
    running = begun(dspex, draft.program_id)
    assert dspex.mark_completed(running.execution_id, 2, {"answer": "a"}).status == ExecutionStatus.COMPLETED


def test_a_lease_that_runs_out_is_its_end(dspex: Interface, program_id: UUID) -> None:
    created = dspex.create_execution(program_id, INPUTS)
    id_ = created.execution_id
    dspex.mark_running(id_, 1, expires_in=1)
    wait_until(lambda: dspex.get_execution(id_).status in END, "its lease runs out")
    ended = dspex.get_execution(id_)
    assert ended.status == ExecutionStatus.FAILED
    assert ended.error is not None
    assert ended.error.code == "lease_expired"
    assert code_of(lambda: dspex.mark_completed(id_, 2, OUTPUTS)) == "conflict"


def test_large_values_go_to_the_blob_store_and_come_back_whole(dspex: Interface, program_id: UUID) -> None:
    question, answer = "?" * 300_000, "!" * 400_000
    created = dspex.create_execution(program_id, {"question": question})
    assert list(created.inputs) == ["$blobs"]
    dspex.mark_running(created.execution_id, 1)
    mark = uuid4()
    done = dspex.mark_completed(created.execution_id, 2, {"answer": answer, "score": 0.5}, mark=mark)
    assert done.outputs == {"answer": answer, "score": 0.5}
    kept = dspex.get_execution(created.execution_id)
    assert kept.outputs is not None
    assert set(kept.outputs) == {"$blobs", "score"}
    assert dspex.whole(kept).inputs == {"question": question}
    assert dspex.mark_completed(created.execution_id, 2, {"answer": answer, "score": 0.5}, mark=mark) == done
    wrong = {"$blobs": {"k": {"digest": "0" * 64, "size": 3, "media_type": "text/plain"}}, "question": "q"}
    assert code_of(lambda: dspex.create_execution(program_id, wrong)) == "invalid_input"


def test_a_mark_whose_message_comes_again_is_made_once(dspex: Interface, program_id: UUID) -> None:
    """As after a worker that died between the commit and the ack."""
    assert isinstance(dspex, LocalClient | RemoteClient)
    publisher: Publisher = dspex._app.publisher if isinstance(dspex, LocalClient) else dspex._publisher
    running = begun(dspex, program_id)
    mark = MarkCompleted(execution_id=running.execution_id, lock_version=2, mark=uuid4(), outputs={**OUTPUTS})
    envelope = wrap(mark, source="/tests")
    twice = Publication(envelope.encode(), exchange=COMMANDS_EXCHANGE, routing_key=envelope.type)
    for _ in range(2):
        publisher.publish(twice)
    wait_until(lambda: dspex.get_execution(running.execution_id).status in END, "it is completed")
    stale = wrap(mark.model_copy(update={"mark": uuid4()}), source="/tests")
    publisher.publish(Publication(stale.encode(), exchange=COMMANDS_EXCHANGE, routing_key=stale.type))

    def rejected() -> list[str | None]:
        return [item.message_id for item in dspex.list_dead_messages(error_code="conflict").items]

    wait_until(lambda: stale.id in rejected(), "the one of another service is rejected")
    assert envelope.id not in rejected()
    assert dspex.get_execution(running.execution_id).lock_version == 3
