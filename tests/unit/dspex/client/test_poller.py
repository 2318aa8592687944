"""Looking up what is waited for: when, how often, and for whom not any more."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from dspex import ExecuteProgram, ExecutionStatus, uuid7
from dspex.client.pending import Pending
from dspex.client.poller import BATCH, Poller
from dspex.contract.events import ErrorDetail, ProblemDetail, Reply, Usage
from dspex.contract.options import ExecutionOptions
from dspex.contract.queries import GetExecution
from dspex.contract.results import ExecutionView
from dspex.errors import BrokerUnavailable, NoAnswer, PublishError, RequestFailed
from tests.waiting import wait_until

NEVER = 3600.0


def view(execution_id: UUID) -> ExecutionView:
    """An execution that was cancelled."""
    now = datetime.now(UTC)
    return ExecutionView(
        execution_id=execution_id,
        program_id=uuid7(),
        status=ExecutionStatus.CANCELLED,
        inputs={},
        outputs=None,
        error=None,
        options=ExecutionOptions(),
        attempt=0,
        duration_ms=None,
        usage=Usage(),
        backend_id=None,
        worker=None,
        source="/tests",
        cancel_requested=True,
        timeline=(),
        inserted_at=now,
        executed_at=None,
        finished_at=now,
        lock_version=1,
    )


def pending() -> Pending:
    return Pending(GetExecution(execution_id=uuid7()))


def id_of(one: Pending) -> UUID:
    assert one.execution_id is not None
    return one.execution_id


class Looks:
    """What was looked at, in its order."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []
        self.largest = 0
        self.during: Callable[[], None] = lambda: None
        self.ended: set[UUID] = set()
        self.watch = Poller(self._look, longest=lambda _: 0.1)

    def _look(self, some: Sequence[Pending]) -> None:
        self.ids += map(id_of, some)
        self.largest = max(self.largest, len(some))
        during, self.during = self.during, lambda: None
        ended = set(self.ended)
        during()
        for one in some:
            if id_of(one) in ended:
                one.seen(view(id_of(one)))

    def of(self, one: Pending) -> int:
        return self.ids.count(id_of(one))


@pytest.fixture
def looks() -> Iterator[Looks]:
    looks = Looks()
    yield looks
    looks.watch.close(lambda: NoAnswer("closed"))


def test_it_looks_until_the_execution_has_ended(looks: Looks) -> None:
    one = pending()
    looks.watch.add(one, 0.0, 0.01)
    wait_until(lambda: looks.of(one) >= 5, "it looks again and again")
    looks.ended.add(id_of(one))
    assert one.wait(30).status == ExecutionStatus.CANCELLED
    seen = looks.of(one)
    other = pending()
    looks.watch.add(other, 0.0, 0.01)
    wait_until(lambda: looks.of(other) >= 10, "the pause that it would have had is over")
    assert looks.of(one) == seen


def test_it_looks_at_once_when_it_hears_of_it(looks: Looks) -> None:
    one, told, other = pending(), pending(), pending()
    for each in (one, told, other):
        looks.watch.add(each, NEVER, NEVER)
    looks.ended = {id_of(one), id_of(told)}
    looks.watch.wake(id_of(told), unless=lambda who: who is told)
    looks.watch.wake(id_of(one))
    one.wait(30)
    assert looks.ids == [id_of(one)]
    looks.watch.wake_all(NEVER)
    told.wait(30)
    assert looks.of(other) == 1
    assert not other.ended.done()


def test_what_it_hears_while_it_looks_is_not_lost(looks: Looks) -> None:
    one = pending()
    execution_id = id_of(one)

    def ends_after_it_was_read() -> None:
        looks.ended.add(execution_id)
        looks.watch.wake(execution_id)

    looks.during = ends_after_it_was_read
    looks.watch.add(one, 0.0, NEVER)
    one.wait(30)
    assert looks.ids == [execution_id, execution_id]


def test_what_nobody_holds_is_not_looked_at(looks: Looks) -> None:
    dropped = pending()
    execution_id = id_of(dropped)
    looks.watch.add(dropped, 0.0, 0.01)
    wait_until(lambda: execution_id in looks.ids, "it looks")
    del dropped
    gc.collect()
    held = pending()
    looks.watch.add(held, 0.0, 0.01)
    wait_until(lambda: looks.of(held) >= 3, "it looks at another")
    before = looks.ids.count(execution_id)
    wait_until(lambda: looks.of(held) >= 10, "the pause that it would have had is over")
    assert looks.ids.count(execution_id) == before


def test_a_look_that_fails_is_made_again(looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no database")

    one = pending()
    looks.during = fail
    looks.ended = {id_of(one)}
    looks.watch.add(one, 0.0, 0.01)
    assert one.wait(30).execution_id == id_of(one)
    assert "no database" in caplog.text


def test_many_are_looked_at_in_batches(looks: Looks) -> None:
    many = [pending() for _ in range(3 * BATCH)]
    looks.ended = set(map(id_of, many))
    begun = threading.Event()

    def until_all_are_due() -> None:
        begun.wait(30)

    first = pending()
    looks.during = until_all_are_due
    looks.watch.add(first, 0.0, NEVER)
    for one in many:
        looks.watch.add(one, 0.0, NEVER)
    begun.set()
    assert [one.wait(30).execution_id for one in many] == [id_of(one) for one in many]
    assert looks.largest == BATCH


def test_closing_fails_what_is_waited_for(looks: Looks) -> None:
    many = [pending() for _ in range(2)]
    for one in many:
        looks.watch.add(one, NEVER, NEVER)
    looks.watch.close(lambda: NoAnswer("closed"))
    errors = [one.ended.exception(timeout=30) for one in many]
    assert [str(error) for error in errors] == ["closed", "closed"]
    assert errors[0] is not errors[1]


class TestAnother:
    """An id, or a key, may be that of another request: what came of that one is not ours."""

    def test_its_end_is_not_ours(self) -> None:
        seen = view(uuid7())
        ours = Pending.of(ExecuteProgram(execution_id=seen.execution_id, program_id=seen.program_id, inputs={"k": 1}))
        ours.seen(seen)
        with pytest.raises(RequestFailed, match="another request") as refused:
            ours.wait(0)
        assert refused.value.code == "conflict"

    @pytest.mark.parametrize("stored", [{"k": [1e23, True, {"a": None}]}, {"k": [10**23, True, {"a": None}]}])
    def test_a_number_that_the_database_writes_otherwise_is_ours(self, stored: dict[str, Any]) -> None:
        seen = view(uuid7()).model_copy(update={"inputs": stored})
        inputs: dict[str, Any] = {"k": [1e23, True, {"a": None}]}
        ours = Pending.of(ExecuteProgram(execution_id=seen.execution_id, program_id=seen.program_id, inputs=inputs))
        ours.seen(seen)
        assert ours.wait(0) == seen

    @pytest.mark.parametrize("other", [{}, {"k": 2}, {"k": [1]}, {"k": "1"}, {"l": 1}])
    def test_other_inputs(self, other: dict[str, Any]) -> None:
        seen = view(uuid7()).model_copy(update={"inputs": other})
        ours = Pending.of(ExecuteProgram(execution_id=seen.execution_id, program_id=seen.program_id, inputs={"k": 1}))
        ours.seen(seen)
        assert isinstance(ours.ended.exception(), RequestFailed)


class TestAnAnswer:
    def test_it_ends_what_is_waited_for_once(self) -> None:
        seen = view(uuid7())
        ours, later = Pending(GetExecution(execution_id=seen.execution_id)), seen.model_copy(update={"lock_version": 9})
        running = seen.model_copy(update={"status": ExecutionStatus.RUNNING})
        ours.take(Reply(answer=running.model_dump(mode="json")))
        assert not ours.ended.done()
        for told in (seen, later):
            ours.take(Reply(answer=told.model_dump(mode="json")))
        assert ours.wait(0) == seen

    def test_an_error_is_told_with_its_code_and_its_problems(self) -> None:
        ours = pending()
        problems = (ProblemDetail(field="inputs.k", message="is missing"),)
        ours.take(Reply(error=ErrorDetail(code="invalid_input", message="no", problems=problems)))
        ours.take(Reply(answer=view(id_of(ours)).model_dump(mode="json")))
        with pytest.raises(RequestFailed) as refused:
            ours.wait(0)
        assert refused.value.code == "invalid_input"
        assert [(problem.field, problem.message) for problem in refused.value.problems] == [("inputs.k", "is missing")]

    def test_a_command_that_is_not_stored_starts_nothing(self) -> None:
        ours = Pending.of(ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={}))
        stored: Future[None] = Future()
        ours.sent(stored, lambda: (PublishError, "the queue is full"))
        with pytest.raises(PublishError, match="not known to be stored after 0 s: the queue is full; wait again"):
            ours.wait(0)
        stored.set_exception(BrokerUnavailable("gone"))
        with pytest.raises(BrokerUnavailable, match="gone"):
            ours.wait(0)

    def test_what_does_not_end_goes_on(self) -> None:
        ours = Pending.of(ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={}))
        stored: Future[None] = Future()
        ours.sent(stored)
        stored.set_result(None)
        with pytest.raises(NoAnswer, match=r"has not ended in 0 s; is a worker running. It goes on"):
            ours.wait(0)
        with pytest.raises(NoAnswer, match="is there one, and a worker running"):
            pending().wait(0)
