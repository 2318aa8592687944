"""What the store promises, on SQLite and on PostgreSQL: one suite, run once on each."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, Engine, func, select, update

from dspex import (
    LM,
    Configuration,
    ErrorDetail,
    ExecutionOptions,
    ExecutionStatus,
    LMParameters,
    ProgramStatus,
    Signature,
    SignatureStatus,
    Usage,
    uuid7,
)
from dspex.errors import Conflict, IllegalTransition, NotFound
from dspex.events import ProblemDetail
from dspex.status import SIGNATURE_TRANSITIONS
from store import counters, executions, programs, rejections, signatures
from store.counters import SHARDS, Counts
from store.engine import READ_ONLY, make_engine
from store.executions import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Finish,
    Lease,
    NoProgram,
    Request,
    Running,
)
from store.rejections import Rejection
from store.tables import executions as executions_table
from store.tables import metadata
from store.tables import program_counters as counters_table
from store.types import UtcDateTime, database_now

ALICE: Final = Lease("alice", 60)
BOB: Final = Lease("bob", 60)
EXPIRED: Final = -1.0
"""Seconds of a lease that has run out already."""

SIGNATURE = Signature.parse("question, k: int = 3 -> answer, score: float")
ERROR = ErrorDetail(code="timeout", message="no answer", problems=(ProblemDetail(field="score", message="is missing"),))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=20)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """In a transaction that is never committed."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def keep_signature(connection: Connection, signature: Signature = SIGNATURE, *, activate: bool = True) -> UUID:
    return signatures.create(connection, uuid7(), signature, activate=activate).id


def keep_program(connection: Connection, signature_id: UUID | None = None) -> UUID:
    """A program that is a draft."""
    return programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature_id or keep_signature(connection),
        adapter_type="mock",
        configuration=Configuration(),
    ).id


def ready_program(connection: Connection) -> UUID:
    program_id = keep_program(connection)
    begun = programs.begin_initialize(connection, program_id)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return program_id


def request(program_id: UUID, execution_id: UUID | None = None, **inputs: Any) -> Request:
    return Request(
        execution_id or uuid7(), program_id, inputs or {"question": "why?"}, ExecutionOptions(), "/tests", None
    )


def taken(claim: Claim) -> Claimed:
    assert isinstance(claim, Claimed)
    return claim


def take(connection: Connection, asked: Request, lease: Lease = ALICE) -> Claimed:
    return taken(executions.claim(connection, lease, [asked])[0])


def completed(asked: Request, claimed: Claimed, **outputs: Any) -> Finish:
    outputs = outputs or {"answer": "because", "score": 0.5}
    usage = Usage(calls=1, input_tokens=10, output_tokens=2, cost=0.25)
    return Finish(asked.id, asked.program_id, claimed.lock_version, 12.5, usage, outputs)


def failed(asked: Request, claimed: Claimed, error: ErrorDetail = ERROR) -> Finish:
    return Finish(asked.id, asked.program_id, claimed.lock_version, 7.5, Usage(calls=1), error=error)


ENDS: Final[Sequence[Callable[[Request, Claimed], Finish]]] = (completed, failed)


def expire(connection: Connection, execution_id: UUID) -> None:
    c = executions_table.c
    connection.execute(
        update(executions_table).where(c.id == execution_id).values(lease_expires_at=database_now(EXPIRED))
    )


def row(connection: Connection, execution_id: UUID) -> tuple[Any, ...]:
    """Everything that is kept of an execution."""
    return tuple(connection.execute(select(executions_table).where(executions_table.c.id == execution_id)).one())


def get(connection: Connection, execution_id: UUID) -> executions.Execution:
    return executions.get(connection, [execution_id])[0]


def counted(connection: Connection, program_id: UUID) -> tuple[int, int]:
    totals = counters.totals(connection, program_id)
    return totals.completed, totals.failed


def clock(connection: Connection) -> datetime:
    now: datetime = connection.execute(select(database_now())).scalar_one()
    return now


def at_once(actions: Sequence[Callable[[], None]]) -> None:
    """Run each in a thread of its own, all beginning together; raises what any of them raised."""
    barrier, errors = threading.Barrier(len(actions)), list[Exception]()

    def run(action: Callable[[], None]) -> None:
        try:
            barrier.wait()
            action()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ExceptionGroup("in threads", errors)


class TestSignatures:
    def test_is_kept_whole(self, connection: Connection) -> None:
        signature = Signature.parse(
            {
                "name": "Größe",
                "module": "shop.sizes",
                "version": "2.1.0",
                "instructions": "Größe?\n\t\"'",
                "inputs": [
                    {"name": "text", "type": "str", "description": "ü"},
                    {"name": "k", "type": "int", "default": 3},
                    {"name": "maybe", "type": "Optional[float]", "default": None},
                ],
                "outputs": [{"name": "size", "type": "Literal['S', 'M']"}, {"name": "all", "type": "list[str]"}],
            }
        )
        signature_id = uuid7()
        created = signatures.create(connection, signature_id, signature, activate=True)
        assert created == signatures.get(connection, signature_id)
        assert created.signature == signature
        assert created.signature.digest == signature.digest
        assert (created.status, created.lock_version) == (SignatureStatus.ACTIVE, 1)

    @pytest.mark.parametrize("activate", [True, False])
    def test_again_changes_nothing(self, connection: Connection, activate: bool) -> None:
        signature_id = uuid7()
        created = signatures.create(connection, signature_id, SIGNATURE, activate=activate)
        assert signatures.create(connection, signature_id, SIGNATURE, activate=True) == created
        assert created.status == (SignatureStatus.ACTIVE if activate else SignatureStatus.DRAFT)

    def test_the_id_of_another_is_a_conflict(self, connection: Connection) -> None:
        signature_id = keep_signature(connection)
        with pytest.raises(Conflict, match=str(signature_id)):
            signatures.create(connection, signature_id, Signature.parse("question -> answer"), activate=True)
        assert signatures.get(connection, signature_id).signature == SIGNATURE

    def test_a_version_is_there_once_in_a_module(self, connection: Connection) -> None:
        first = SIGNATURE.model_copy(update={"module": "shop", "version": "1.0.0"})
        keep_signature(connection, first)
        with pytest.raises(Conflict, match=r"'shop' has a version 1\.0\.0"):
            keep_signature(connection, first)
        keep_signature(connection, first.model_copy(update={"version": "1.0.1"}))
        keep_signature(connection, first.model_copy(update={"module": "other"}))

    def test_without_a_module_any_number_have_the_same_version(self, connection: Connection) -> None:
        assert keep_signature(connection) != keep_signature(connection)

    def test_not_found(self, connection: Connection) -> None:
        unknown = uuid7()
        with pytest.raises(NotFound, match=str(unknown)):
            signatures.get(connection, unknown)
        with pytest.raises(NotFound, match=str(unknown)):
            signatures.transition(connection, unknown, SignatureStatus.ACTIVE)

    def test_every_transition(self, connection: Connection) -> None:
        for start, to in itertools.product(SignatureStatus, SignatureStatus):
            signature_id = keep_signature(connection, activate=start != SignatureStatus.DRAFT)
            if start == SignatureStatus.DEPRECATED:
                signatures.transition(connection, signature_id, SignatureStatus.DEPRECATED)
            before = signatures.get(connection, signature_id)
            assert before.status == start
            if to in SIGNATURE_TRANSITIONS[start]:
                after = signatures.transition(connection, signature_id, to)
                assert (after.status, after.lock_version) == (to, before.lock_version + 1)
            else:
                with pytest.raises(IllegalTransition, match=f"cannot become {to}: it is {start}"):
                    signatures.transition(connection, signature_id, to)
                after = before
            assert signatures.get(connection, signature_id) == after

    def test_many_create_the_same_at_once(self, engine: Engine) -> None:
        signature_id = uuid7()

        def create() -> None:
            with engine.begin() as connection:
                signatures.create(connection, signature_id, SIGNATURE, activate=True)

        at_once([create] * 8)


class TestPrograms:
    def test_is_kept_whole(self, connection: Connection) -> None:
        signature_id, program_id = keep_signature(connection), uuid7()
        parameters = LMParameters(temperature=0.0, top_p=1.0, max_tokens=5, stop=("\n", "ü"), timeout=2.5)
        configuration = Configuration(
            module="ChainOfThought",
            parameters={"n": 3, "deep": {"list": [1, None, "x"], "": {}}},
            lm=LM(model="openai/gpt-4o-mini", secret="OPENAI_API_KEY", parameters=parameters),
        )
        created = programs.create(
            connection,
            program_id,
            name="a ü '",
            signature_id=signature_id,
            adapter_type="native",
            configuration=configuration,
        )
        assert created == programs.get(connection, program_id)
        assert created == programs.Program(
            id=program_id,
            name="a ü '",
            signature_id=signature_id,
            signature=SIGNATURE,
            adapter_type="native",
            configuration=configuration,
            status=ProgramStatus.DRAFT,
            backend_id=None,
            error=None,
            lock_version=1,
        )

    def test_again_changes_nothing_whatever_has_become_of_it(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        before = programs.get(connection, program_id)
        again = programs.create(
            connection,
            program_id,
            name=before.name,
            signature_id=before.signature_id,
            adapter_type=before.adapter_type,
            configuration=before.configuration,
        )
        assert again == before
        assert again.status == ProgramStatus.READY

    @pytest.mark.parametrize(
        "change", [{"name": "b"}, {"adapter_type": "native"}, {"configuration": Configuration(module="ReAct")}]
    )
    def test_the_id_of_another_is_a_conflict(self, connection: Connection, change: dict[str, Any]) -> None:
        program_id = keep_program(connection)
        before = programs.get(connection, program_id)
        asked: dict[str, Any] = {
            "name": before.name,
            "signature_id": before.signature_id,
            "adapter_type": before.adapter_type,
            "configuration": before.configuration,
        }
        with pytest.raises(Conflict, match=str(program_id)):
            programs.create(connection, program_id, **(asked | change))
        with pytest.raises(Conflict, match=str(program_id)):
            programs.create(connection, program_id, **{**asked, "signature_id": keep_signature(connection)})
        assert programs.get(connection, program_id) == before

    def test_without_its_signature_it_is_not_kept(self, connection: Connection) -> None:
        unknown, program_id = uuid7(), uuid7()
        with pytest.raises(NotFound, match=f"signature_id: .*{unknown}"):
            programs.create(
                connection,
                program_id,
                name="a",
                signature_id=unknown,
                adapter_type="mock",
                configuration=Configuration(),
            )
        with pytest.raises(NotFound, match=f"program_id: .*{program_id}"):
            programs.get(connection, program_id)

    def test_initialize(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        begun = programs.begin_initialize(connection, program_id)
        assert (begun.status, begun.lock_version, begun.backend_id) == (ProgramStatus.INITIALIZING, 2, None)
        ready = programs.end_initialize(connection, begun, "backend-1")
        assert ready is not None
        assert (ready.status, ready.lock_version, ready.backend_id) == (ProgramStatus.READY, 3, "backend-1")
        assert ready == programs.get(connection, program_id)

    def test_initialize_what_is_ready_changes_nothing(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        ready = programs.get(connection, program_id)
        assert programs.begin_initialize(connection, program_id) == ready
        assert programs.end_initialize(connection, ready, "backend-2") is None
        assert programs.get(connection, program_id) == ready

    def test_who_takes_over_fences_the_first(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        first = programs.begin_initialize(connection, program_id)
        second = programs.begin_initialize(connection, program_id)
        assert programs.end_initialize(connection, first, "of the first") is None
        assert programs.end_initialize(connection, first, ERROR) is None
        ready = programs.end_initialize(connection, second, "of the second")
        assert ready is not None
        assert ready.backend_id == "of the second"
        assert programs.end_initialize(connection, second, "again") is None
        assert programs.get(connection, program_id) == ready

    def test_after_an_error_it_can_be_initialized_again(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        begun = programs.begin_initialize(connection, program_id)
        wrong = programs.end_initialize(connection, begun, ErrorDetail(code="auth", message="no key\x00"))
        assert wrong is not None
        assert (wrong.status, wrong.backend_id) == (ProgramStatus.ERROR, None)
        assert wrong.error == ErrorDetail(code="auth", message="no key\ufffd")
        ready = programs.end_initialize(connection, programs.begin_initialize(connection, program_id), "b")
        assert ready is not None
        assert (ready.status, ready.backend_id, ready.error) == (ProgramStatus.READY, "b", None)

    def test_of_a_draft_signature_it_is_not_initialized(self, connection: Connection) -> None:
        signature_id = keep_signature(connection, activate=False)
        program_id = keep_program(connection, signature_id)
        before = programs.get(connection, program_id)
        with pytest.raises(IllegalTransition, match="activate it"):
            programs.begin_initialize(connection, program_id)
        assert programs.get(connection, program_id) == before
        signatures.transition(connection, signature_id, SignatureStatus.ACTIVE)
        assert programs.begin_initialize(connection, program_id).status == ProgramStatus.INITIALIZING

    def test_archived_is_the_end(self, connection: Connection) -> None:
        for program_id in (keep_program(connection), ready_program(connection)):
            archived = programs.archive(connection, program_id)
            assert archived.status == ProgramStatus.ARCHIVED
            with pytest.raises(IllegalTransition, match="it is archived"):
                programs.begin_initialize(connection, program_id)
            with pytest.raises(IllegalTransition, match="it is archived"):
                programs.archive(connection, program_id)
            assert programs.get(connection, program_id) == archived

    def test_what_is_initializing_is_not_archived(self, connection: Connection) -> None:
        begun = programs.begin_initialize(connection, keep_program(connection))
        with pytest.raises(IllegalTransition, match="it is initializing"):
            programs.archive(connection, begun.id)
        assert programs.get(connection, begun.id) == begun

    def test_not_found(self, connection: Connection) -> None:
        for function in (programs.get, programs.begin_initialize, programs.archive):
            with pytest.raises(NotFound):
                function(connection, uuid7())


class TestClaim:
    def test_new(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = Request(
            uuid7(), program_id, {"question": "why?"}, ExecutionOptions(seed=7), "/shop", f"00-{'a' * 32}-{'b' * 16}-01"
        )
        before = clock(connection)
        [claimed] = executions.claim(connection, ALICE, [asked])
        after = clock(connection)
        assert claimed == Claimed(asked.id, attempt=1, lock_version=1, backend_id="backend-1")
        kept = get(connection, asked.id)
        assert before <= kept.inserted_at <= after
        assert kept == executions.Execution(
            id=asked.id,
            program_id=program_id,
            status=ExecutionStatus.RUNNING,
            inputs={"question": "why?"},
            outputs=None,
            error=None,
            usage=Usage(),
            duration_ms=None,
            attempt=1,
            backend_id="backend-1",
            worker="alice",
            source="/shop",
            traceparent=asked.traceparent,
            inserted_at=kept.inserted_at,
            started_at=kept.started_at,
            finished_at=None,
            lock_version=1,
        )

    def test_nothing(self, connection: Connection) -> None:
        assert executions.claim(connection, ALICE, []) == []

    def test_answers_in_the_order_of_the_requests(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id if number % 3 else uuid7()) for number in range(20)]
        random.Random(1).shuffle(asked)
        claims = executions.claim(connection, ALICE, asked)
        assert [claim.id for claim in claims if not isinstance(claim, Ended)] == [item.id for item in asked]
        for item, claim in zip(asked, claims, strict=True):
            assert isinstance(claim, Claimed if item.program_id == program_id else NoProgram)

    def test_twice_in_a_batch_is_claimed_once(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        other = request(program_id, asked.id, question="something else")
        claims = executions.claim(connection, ALICE, [asked, asked, replace(asked), other, request(program_id), other])
        kinds = [type(claim) for claim in claims]
        assert kinds == [Claimed, Running, Running, Conflicting, Claimed, Conflicting]
        assert get(connection, asked.id).attempt == 1

    def test_twice_in_a_batch_each_has_its_own_answer(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        other = request(program_id, asked.id, question="something else")
        assert executions.finish(connection, 0, [completed(asked, take(connection, asked))]) == [True]
        ended = Ended(get(connection, asked.id))
        both = [Conflicting(asked.id), ended]
        assert executions.claim(connection, ALICE, [other, asked, asked, other]) == [*both, *reversed(both)]
        unknown = request(uuid7())
        good = request(program_id, unknown.id)
        claims = executions.claim(connection, ALICE, [unknown, unknown, good, good])
        assert [type(claim) for claim in claims] == [NoProgram, NoProgram, Claimed, Running]

    def test_what_runs_elsewhere(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        before = row(connection, asked.id)
        for lease in (BOB, ALICE):
            assert executions.claim(connection, lease, [asked]) == [Running(asked.id)]
        assert row(connection, asked.id) == before

    @pytest.mark.parametrize("end", ENDS)
    def test_what_has_ended(self, connection: Connection, end: Callable[[Request, Claimed], Finish]) -> None:
        asked = request(ready_program(connection))
        executions.finish(connection, 0, [end(asked, take(connection, asked))])
        before = row(connection, asked.id)
        assert executions.claim(connection, BOB, [asked]) == [Ended(get(connection, asked.id))]
        assert row(connection, asked.id) == before

    def test_the_id_of_another_request(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        take(connection, asked)
        before = row(connection, asked.id)
        others = [
            request(program_id, asked.id, question="how?"),
            request(program_id, asked.id, question="why?", k=1),
            request(ready_program(connection), asked.id),
            request(uuid7(), asked.id),
            replace(asked, options=ExecutionOptions(seed=1)),
        ]
        for expired in (False, True):
            if expired:
                expire(connection, asked.id)
                before = row(connection, asked.id)
            for other in others:
                assert executions.claim(connection, BOB, [other]) == [Conflicting(asked.id)]
            assert row(connection, asked.id) == before

    def test_who_asks_and_from_where_is_not_part_of_the_request(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        assert executions.claim(connection, BOB, [replace(asked, source="/other")]) == [Running(asked.id)]

    def test_no_program(self, connection: Connection) -> None:
        asked = request(uuid7())
        assert executions.claim(connection, ALICE, [asked]) == [NoProgram(asked.id)]
        assert executions.get(connection, [asked.id]) == []

    def test_of_a_program_that_is_not_ready_has_no_backend(self, connection: Connection) -> None:
        archived = ready_program(connection)
        programs.archive(connection, archived)
        begun = keep_program(connection)
        programs.begin_initialize(connection, begun)
        for program_id in (keep_program(connection), begun, archived):
            asked = request(program_id)
            claimed = take(connection, asked)
            assert claimed.backend_id is None
            assert executions.finish(connection, 0, [failed(asked, claimed)]) == [True]
            assert counted(connection, program_id) == (0, 1)

    def test_again_when_the_lease_has_run_out(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        first = take(connection, asked, Lease("alice", EXPIRED))
        inserted = get(connection, asked.id)
        second = take(connection, asked, BOB)
        assert (second.attempt, second.lock_version) == (first.attempt + 1, first.lock_version + 1)
        kept = get(connection, asked.id)
        assert (kept.worker, kept.attempt, kept.inserted_at) == ("bob", 2, inserted.inserted_at)
        assert executions.claim(connection, ALICE, [asked]) == [Running(asked.id)]

    def test_again_what_is_pending(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.release(connection, ALICE)
        second = take(connection, asked, BOB)
        assert (second.attempt, second.lock_version) == (1, 3)

    def test_again_takes_the_program_as_it_is_now(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        asked = request(program_id)
        assert take(connection, asked, Lease("alice", EXPIRED)).backend_id is None
        programs.end_initialize(connection, programs.begin_initialize(connection, program_id), "b")
        assert take(connection, asked).backend_id == "b"


class TestFinish:
    def test_completed(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        before = get(connection, asked.id)
        assert executions.finish(connection, 3, [completed(asked, claimed, answer="ü", score=1.0)]) == [True]
        kept = get(connection, asked.id)
        assert kept == replace(
            before,
            status=ExecutionStatus.COMPLETED,
            outputs={"answer": "ü", "score": 1.0},
            usage=Usage(calls=1, input_tokens=10, output_tokens=2, cost=0.25),
            duration_ms=12.5,
            finished_at=kept.finished_at,
            lock_version=2,
        )
        assert kept.status.terminal
        assert kept.finished_at is not None
        totals = counters.totals(connection, asked.program_id)
        assert totals == Counts(
            completed=1,
            failed=0,
            duration_ms=12.5,
            input_tokens=10,
            output_tokens=2,
            cost=0.25,
            last_executed_at=totals.last_executed_at,
        )
        assert totals.last_executed_at is not None

    def test_failed(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        assert executions.finish(connection, 3, [failed(asked, take(connection, asked))]) == [True]
        kept = get(connection, asked.id)
        assert (kept.status, kept.error, kept.outputs) == (ExecutionStatus.FAILED, ERROR, None)
        assert counted(connection, asked.program_id) == (0, 1)

    def test_an_error_of_characters_that_cannot_be_kept(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        error = ErrorDetail(
            code="parse_failure",
            message="got \x00 and \ud800",
            problems=(ProblemDetail(field="\x00", message="\udfff ü"),),
        )
        assert executions.finish(connection, 0, [failed(asked, take(connection, asked), error)]) == [True]
        kept = get(connection, asked.id).error
        assert kept is not None
        assert kept.message == "got \ufffd and ?"
        assert kept.problems == (ProblemDetail(field="\ufffd", message="? ü"),)

    def test_nothing(self, connection: Connection) -> None:
        assert executions.finish(connection, 0, []) == []

    def test_fenced(self, connection: Connection) -> None:
        """Neither the row nor the counters change for one whose lease was taken over."""
        program_id = ready_program(connection)
        asked, other = request(program_id), request(program_id)
        zombie = take(connection, asked, Lease("alice", EXPIRED))
        claimed = take(connection, asked, BOB)
        before = row(connection, asked.id)
        answers = executions.finish(
            connection, 0, [completed(asked, zombie), completed(other, take(connection, other)), failed(asked, zombie)]
        )
        assert answers == [False, True, False]
        assert row(connection, asked.id) == before
        assert counted(connection, program_id) == (1, 0)
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]
        assert executions.finish(connection, 0, [completed(asked, zombie)]) == [False]
        assert counted(connection, program_id) == (2, 0)

    def test_of_what_is_not_there(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        assert executions.finish(connection, 0, [completed(asked, Claimed(asked.id, 1, 1, None))]) == [False]
        assert counted(connection, asked.program_id) == (0, 0)

    @pytest.mark.parametrize("version", [2, 3])
    def test_of_what_is_pending(self, connection: Connection, version: int) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.release(connection, ALICE)
        before = row(connection, asked.id)
        assert executions.finish(connection, 0, [completed(asked, Claimed(asked.id, 1, version, None))]) == [False]
        assert row(connection, asked.id) == before

    def test_twice_is_counted_once(self, connection: Connection) -> None:
        """The commit arrived, the answer did not: the worker asks again, and hears that it has ended as it asked."""
        asked = request(ready_program(connection))
        end = completed(asked, take(connection, asked))
        assert executions.finish(connection, 0, [end]) == [True]
        before = row(connection, asked.id)
        assert executions.finish(connection, 1, [end]) == [True]
        assert executions.finish(connection, 1, [end, end]) == [True, True]
        assert executions.finish(connection, 1, [replace(end, outputs=None, error=ERROR)]) == [False]
        assert row(connection, asked.id) == before
        assert counted(connection, asked.program_id) == (1, 0)

    def test_twice_in_a_batch_is_counted_once(self, connection: Connection) -> None:
        """The zombie and the one that took over may be threads of one process, and end in one batch."""
        asked = request(ready_program(connection))
        zombie = take(connection, asked, Lease("alice", EXPIRED))
        claimed = take(connection, asked, ALICE)
        ends = [completed(asked, zombie, answer="old"), completed(asked, claimed, answer="new"), failed(asked, zombie)]
        assert executions.finish(connection, 0, [*ends, ends[1]]) == [False, True, False, True]
        assert get(connection, asked.id).outputs == {"answer": "new"}
        assert counted(connection, asked.program_id) == (1, 0)

    def test_two_ends_of_one_claim_in_a_batch(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        answers = executions.finish(connection, 0, [completed(asked, claimed), failed(asked, claimed)])
        assert sorted(answers) == [False, True]
        status = get(connection, asked.id).status
        assert status == (ExecutionStatus.COMPLETED if answers[0] else ExecutionStatus.FAILED)
        assert sum(counted(connection, asked.program_id)) == 1

    @pytest.mark.parametrize("end", ENDS)
    def test_what_has_ended_never_changes(
        self, connection: Connection, end: Callable[[Request, Claimed], Finish]
    ) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        executions.finish(connection, 0, [end(asked, claimed)])
        before, counts = row(connection, asked.id), counted(connection, asked.program_id)
        executions.claim(connection, BOB, [asked])
        executions.claim(connection, ALICE, [request(asked.program_id, asked.id, question="other")])
        assert executions.heartbeat(connection, ALICE) == 0
        assert executions.release(connection, ALICE) == 0
        assert executions.rescue(connection, 0.0, 10) == []
        for version in range(5):
            later = replace(claimed, lock_version=version)
            executions.finish(connection, 0, [completed(asked, later), failed(asked, later)])
        assert row(connection, asked.id) == before
        assert counted(connection, asked.program_id) == counts

    def test_many_of_many_programs(self, connection: Connection) -> None:
        ids = [ready_program(connection) for _ in range(5)]
        asked = [request(ids[number % 5]) for number in range(60)]
        claims = [taken(claim) for claim in executions.claim(connection, ALICE, asked)]
        ends = [
            (failed if number % 4 == 0 else completed)(item, claim)
            for number, (item, claim) in enumerate(zip(asked, claims, strict=True))
        ]
        assert executions.finish(connection, 1, ends) == [True] * 60
        for program_id in ids:
            rows = executions.count(connection, program_id)
            assert rows == {ExecutionStatus.COMPLETED: 9, ExecutionStatus.FAILED: 3}
            assert counted(connection, program_id) == (9, 3)
        ended = executions.ended(connection, [item.id for item in asked])
        assert {item.id for item in ended} == {item.id for item in asked}

    def test_ended_leaves_out_what_is_open(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        running, pending, done = (request(program_id) for _ in range(3))
        take(connection, pending)
        executions.release(connection, ALICE)
        take(connection, running)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        asked = [running.id, pending.id, done.id, uuid7()]
        assert [item.id for item in executions.ended(connection, asked)] == [done.id]
        assert {item.id for item in executions.get(connection, asked)} == set(asked[:3])


class TestLease:
    def test_a_heartbeat_extends_what_the_worker_runs_and_nothing_else(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        mine, his, given_up, done = (request(program_id) for _ in range(4))
        take(connection, given_up)
        executions.release(connection, ALICE)
        take(connection, mine)
        take(connection, his, BOB)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        before = {item.id: row(connection, item.id) for item in (mine, his, given_up, done)}
        assert executions.heartbeat(connection, Lease("alice", 3600)) == 1
        for item in (his, given_up, done):
            assert row(connection, item.id) == before[item.id]
        lease = list(executions_table.c).index(executions_table.c.lease_expires_at)
        after = row(connection, mine.id)
        assert after[lease] - before[mine.id][lease] > timedelta(minutes=30)
        assert after[:lease] + after[lease + 1 :] == before[mine.id][:lease] + before[mine.id][lease + 1 :]

    def test_a_heartbeat_keeps_the_claim(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked, Lease("alice", EXPIRED))
        executions.heartbeat(connection, ALICE)
        assert executions.rescue(connection, 0.0, 10) == []
        assert executions.claim(connection, BOB, [asked]) == [Running(asked.id)]
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]

    def test_release_gives_the_attempt_back_and_fences(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked, his = request(program_id), request(program_id)
        claimed = take(connection, asked)
        take(connection, his, BOB)
        before = row(connection, his.id)
        assert executions.release(connection, ALICE) == 1
        assert row(connection, his.id) == before
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 0, 2)
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [False]
        assert executions.heartbeat(connection, ALICE) == 0
        again = take(connection, asked, BOB)
        assert (again.attempt, again.lock_version) == (1, 3)

    def test_rescue_takes_what_has_run_out_and_fences_the_zombie(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = Request(uuid7(), program_id, {"question": "ü"}, ExecutionOptions(seed=3), "/shop", None)
        alive, done = request(program_id), request(program_id)
        zombie = take(connection, asked, Lease("alice", EXPIRED))
        take(connection, alive)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        assert executions.rescue(connection, 60.0, 10) == [asked]
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 1, 2)
        assert executions.finish(connection, 0, [completed(asked, zombie)]) == [False]
        assert executions.heartbeat(connection, Lease("alice", 60)) == 1
        assert executions.rescue(connection, 60.0, 10) == []
        claimed = take(connection, asked, BOB)
        assert (claimed.attempt, claimed.lock_version) == (2, 3)
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]

    def test_rescue_comes_back_to_what_nobody_takes(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked, Lease("alice", EXPIRED))
        assert executions.rescue(connection, EXPIRED, 10) == [asked]
        assert executions.rescue(connection, 60.0, 10) == [asked]
        assert executions.rescue(connection, 60.0, 10) == []

    def test_released_is_rescued_when_its_message_is_lost(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.release(connection, Lease("alice", EXPIRED))
        assert executions.rescue(connection, 60.0, 10) == [asked]

    def test_rescue_takes_no_more_than_it_may(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id) for _ in range(25)]
        executions.claim(connection, Lease("alice", EXPIRED), asked)
        taken_ids = [{item.id for item in executions.rescue(connection, 60.0, 10)} for _ in range(4)]
        assert [len(ids) for ids in taken_ids] == [10, 10, 5, 0]
        assert set().union(*taken_ids) == {item.id for item in asked}

    def test_two_rescue_at_once(self, engine: Engine) -> None:
        """While the first has not committed, the second passes over what the first has; SQLite lets it wait."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = [request(program_id) for _ in range(20)]
            executions.claim(connection, Lease("alice", EXPIRED), asked)
        found: list[UUID] = []

        def rescue() -> None:
            for _ in range(10):
                with engine.begin() as connection:
                    items = executions.rescue(connection, 60.0, 3)
                    found.extend(item.id for item in items)

        if engine.dialect.name == "postgresql":
            with engine.begin() as first, engine.begin() as second:
                ids = [{item.id for item in executions.rescue(connection, 60.0, 7)} for connection in (first, second)]
            assert [len(item) for item in ids] == [7, 7]
            assert not ids[0] & ids[1]
            found.extend(ids[0] | ids[1])
        at_once([rescue] * 4)
        assert sorted(found) == sorted(item.id for item in asked)

    def test_a_heartbeat_waits_for_nobody(self, engine: Engine) -> None:
        """A row that is being ended is passed over: waiting for it could deadlock with the batch that ends it."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = [request(program_id) for _ in range(5)]
            claims = [taken(claim) for claim in executions.claim(connection, ALICE, asked)]
        if engine.dialect.name == "postgresql":
            with engine.begin() as writer, engine.begin() as other:
                executions.finish(writer, 0, [completed(asked[2], claims[2])])
                assert executions.heartbeat(other, ALICE) == 4
        else:
            with engine.begin() as writer:
                assert executions.heartbeat(writer, ALICE) == 5


class TestTime:
    def test_is_the_clock_of_the_database_and_aware(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        before = clock(connection)
        take(connection, asked)
        executions.finish(connection, 0, [completed(asked, Claimed(asked.id, 1, 1, None))])
        after = clock(connection)
        kept = get(connection, asked.id)
        last = counters.totals(connection, asked.program_id).last_executed_at
        for moment in (kept.inserted_at, kept.started_at, kept.finished_at, last):
            assert moment is not None
            assert moment.tzinfo is UTC
            assert before <= moment <= after
        assert abs(datetime.now(UTC) - before) < timedelta(hours=1)

    @pytest.mark.parametrize("seconds", [-3600.0, -0.5, 0.0, 0.25, 1e-5, 30, 86_400.5])
    def test_offsets_are_right(self, connection: Connection, seconds: float) -> None:
        before = clock(connection)
        moment = connection.execute(select(database_now(seconds))).scalar_one()
        after = clock(connection)
        slack = timedelta(milliseconds=2)
        assert before + timedelta(seconds=seconds) - slack <= moment <= after + timedelta(seconds=seconds) + slack

    def test_goes_on_within_a_transaction(self, connection: Connection) -> None:
        first = clock(connection)
        while (later := clock(connection)) == first:
            pass
        assert later > first

    def test_a_moment_of_another_zone_is_the_same_moment(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        c = executions_table.c
        for text in ("2026-03-29T03:30:00.123456+05:45", "1999-12-31T23:59:59.999999-10:00", "2026-01-01T00:00:00Z"):
            moment = datetime.fromisoformat(text)
            connection.execute(update(executions_table).where(c.id == asked.id).values(started_at=moment))
            kept = get(connection, asked.id).started_at
            assert kept is not None
            assert kept == moment
            assert kept.tzinfo is UTC
            found = select(func.count()).where(
                c.started_at == moment, c.started_at < moment + timedelta(microseconds=1)
            )
            assert connection.execute(found).scalar_one() == 1

    def test_moments_sort_as_time_does(self, connection: Connection) -> None:
        moments = [database_now(seconds) for seconds in (-86_400, -1, -0.001, 0, 0.002, 1, 86_400)]
        found = connection.execute(select(*moments)).one()
        assert list(found) == sorted(found)
        assert UtcDateTime().cache_ok


VALUES: Mapping[str, Any] = {
    "unicode": "é 😀 \u2028 \ufeff \x01 \x7f \\ \"'",
    "looks like SQL": "'; DROP TABLE executions; --",
    "looks like a path": "$.inputs[0].\"a\"->>'b' %(x)s :name ? %s {} \\u0000",
    "looks like null": "null",
    "looks like a number": "0123",
    "looks like JSON": '{"a": [1]}',
    "empty text": "",
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "larger than 64 bits": 2**64 + 1,
    "very large": 10**60 + 7,
    "float": 0.1,
    "float that is whole": 3.0,
    "float with an exponent": 1e16,
    "float beyond integers": 1.5e300,
    "tiny": 5e-324,
    "negative zero": -0.0,
    "long": "x" * 100_000,
    "empty": {},
    "empty list": [],
    "keys": {"a.b": 1, 'c"d': 2, "e'f": 3, "": 4, "$": 5, "ü😀": 6, "null": None, "g[0]": 7, "h\\i": 8},
    "nested": {"a": [{"b": [[], [None, {"c": {}}]]}]},
    "deep": [[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]],
}


def exact(values: Any) -> Any:
    """Numbers by their value: 1e16 is 10000000000000000 in PostgreSQL, and reads back as an integer."""
    return json.loads(json.dumps(values), parse_int=Decimal, parse_float=Decimal)


class TestValues:
    def test_come_back_as_they_were(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id, value=value, nested=[{"value": value}]) for value in VALUES.values()]
        claims = [taken(claim) for claim in executions.claim(connection, ALICE, asked)]
        ends = [completed(item, claim, **item.inputs) for item, claim in zip(asked, claims, strict=True)]
        assert executions.finish(connection, 0, ends) == [True] * len(VALUES)
        for name, item in zip(VALUES, asked, strict=True):
            kept = get(connection, item.id)
            assert exact(kept.inputs) == exact(item.inputs), name
            assert exact(kept.outputs) == exact(item.inputs), name

    def test_as_names_of_fields(self, connection: Connection) -> None:
        values: dict[str, Any] = {str(value)[:1000]: number for number, value in enumerate(VALUES.values())}
        asked = request(ready_program(connection), **values)
        claimed = take(connection, asked)
        assert executions.finish(connection, 0, [completed(asked, claimed, **values)]) == [True]
        kept = get(connection, asked.id)
        assert kept.inputs == kept.outputs == values

    def test_a_rescued_request_is_still_the_same_request(self, connection: Connection) -> None:
        """It is published again as the database gives it back, and must not conflict with itself."""
        program_id = ready_program(connection)
        asked = {name: request(program_id, value=value, nested=[{"value": value}]) for name, value in VALUES.items()}
        executions.claim(connection, Lease("alice", EXPIRED), list(asked.values()))
        rescued = {item.id: item for item in executions.rescue(connection, 60.0, len(VALUES))}
        for name, item in asked.items():
            assert rescued[item.id].digest == item.digest, name
        claims = executions.claim(connection, BOB, list(rescued.values()))
        assert {claim.attempt for claim in claims if isinstance(claim, Claimed)} == {2}
        assert executions.claim(connection, BOB, list(asked.values())) == [Running(i.id) for i in asked.values()]

    def test_numbers_that_differ_are_other_requests(self) -> None:
        program_id, execution_id = uuid7(), uuid7()
        numbers = [0, 1, 2**53, 2**53 + 1, 2**64, 2**64 + 1, 0.5, "1", True, None, [1], {"1": 1}]
        digests = {request(program_id, execution_id, value=number).digest for number in numbers}
        assert len(digests) == len(numbers)

    def test_nothing_at_all(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = Request(uuid7(), program_id, {}, ExecutionOptions(), "/tests")
        claimed = take(connection, asked)
        ended = Finish(asked.id, program_id, claimed.lock_version, 0.0, Usage(), outputs={})
        assert executions.finish(connection, 0, [ended]) == [True]
        kept = get(connection, asked.id)
        assert (kept.inputs, kept.outputs, kept.error) == ({}, {}, None)


class TestCounters:
    def test_of_nothing(self, connection: Connection) -> None:
        assert counters.totals(connection, uuid7()) == Counts()
        counters.increment(connection, 0, {})

    def test_add_up_over_shards(self, connection: Connection) -> None:
        program_id, other = uuid7(), uuid7()
        for shard in (0, 1, 1, SHARDS - 1):
            counters.increment(
                connection, shard, {program_id: Counts(completed=2, failed=1, cost=0.5), other: Counts(failed=1)}
            )
        totals = counters.totals(connection, program_id)
        assert (totals.completed, totals.failed, totals.executions, totals.cost) == (8, 4, 12, 2.0)
        assert counted(connection, other) == (0, 4)

    def test_larger_than_32_bits(self, connection: Connection) -> None:
        program_id = uuid7()
        for _ in range(2):
            counters.increment(connection, 0, {program_id: Counts(input_tokens=2**40, output_tokens=2**33)})
        totals = counters.totals(connection, program_id)
        assert (totals.input_tokens, totals.output_tokens) == (2**41, 2**34)

    @pytest.mark.parametrize("shards", [1, SHARDS], ids=["one shard", "a shard each"])
    def test_lose_nothing_when_many_count_at_once(self, engine: Engine, shards: int) -> None:
        """Several programs a batch, on one shard, in any order: no update is lost, and none deadlocks."""
        ids = [uuid7() for _ in range(6)]
        rounds, threads = 10, 16

        def count(number: int) -> Callable[[], None]:
            def run() -> None:
                chosen = random.Random(number)
                for _ in range(rounds):
                    batch = {program_id: Counts(completed=1, failed=2) for program_id in chosen.sample(ids, 6)}
                    with engine.begin() as connection:
                        counters.increment(connection, number % shards, batch)

            return run

        at_once([count(number) for number in range(threads)])
        with engine.begin() as connection:
            for program_id in ids:
                assert counted(connection, program_id) == (rounds * threads, 2 * rounds * threads)
            versions = connection.execute(select(func.sum(counters_table.c.lock_version))).scalar_one()
        assert versions == rounds * threads * len(ids)

    def test_equal_the_rows_when_many_work_at_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            ids = [ready_program(connection) for _ in range(3)]

        def work(number: int) -> Callable[[], None]:
            def run() -> None:
                lease, chosen = Lease(f"worker-{number}", 60), random.Random(number)
                for _ in range(4):
                    asked = [request(chosen.choice(ids)) for _ in range(10)]
                    with engine.begin() as connection:
                        claims = [taken(claim) for claim in executions.claim(connection, lease, asked)]
                    ends = [chosen.choice(ENDS)(item, claim) for item, claim in zip(asked, claims, strict=True)]
                    with engine.begin() as connection:
                        assert all(executions.finish(connection, number % 2, ends))

            return run

        at_once([work(number) for number in range(8)])
        with engine.begin() as connection:
            total = 0
            for program_id in ids:
                rows = executions.count(connection, program_id)
                ended = (rows.get(ExecutionStatus.COMPLETED, 0), rows.get(ExecutionStatus.FAILED, 0))
                assert counted(connection, program_id) == ended
                total += sum(ended)
        assert total == 8 * 4 * 10

    def test_are_undone_with_the_transaction(self, engine: Engine) -> None:
        with engine.begin() as connection:
            asked = request(ready_program(connection))
            claimed = take(connection, asked)
        with engine.connect() as connection:
            executions.finish(connection, 0, [completed(asked, claimed)])
            connection.rollback()
        with engine.begin() as connection:
            assert counted(connection, asked.program_id) == (0, 0)
            assert get(connection, asked.id).status == ExecutionStatus.RUNNING


class TestRejections:
    REJECTION = Rejection("dspex.commands", "malformed_message", "the body is not JSON", b"\x00\xff{'", 4, "id", "type")

    def test_is_kept_whole(self, connection: Connection) -> None:
        rejections.record(connection, self.REJECTION)
        [kept] = rejections.recent(connection)
        assert (kept.id, kept.queue, kept.body, kept.body_size) == (
            self.REJECTION.id,
            "dspex.commands",
            b"\x00\xff{'",
            4,
        )
        assert (kept.error_code, kept.error_message) == ("malformed_message", "the body is not JSON")
        assert (kept.message_id, kept.message_type, kept.deliveries) == ("id", "type", 1)
        assert kept.inserted_at.tzinfo is UTC

    def test_the_same_body_again_is_counted(self, connection: Connection) -> None:
        for _ in range(2):
            rejections.record(connection, self.REJECTION)
        [kept] = rejections.recent(connection)
        assert kept.deliveries == 2

    def test_another_queue_body_or_size_is_another(self, connection: Connection) -> None:
        for rejection in (
            self.REJECTION,
            replace(self.REJECTION, queue="other"),
            replace(self.REJECTION, body=b""),
            replace(self.REJECTION, body_size=2_000_000),
        ):
            rejections.record(connection, rejection)
        assert [kept.deliveries for kept in rejections.recent(connection)] == [1] * 4

    def test_recent_are_the_newest_first(self, connection: Connection) -> None:
        for number in range(5):
            rejections.record(connection, replace(self.REJECTION, body=bytes([number])))
            before = clock(connection)
            while clock(connection) == before:
                pass
        assert [kept.body for kept in rejections.recent(connection, limit=3)] == [b"\x04", b"\x03", b"\x02"]

    def test_whatever_came_can_be_kept(self, connection: Connection) -> None:
        every_byte = bytes(range(256)) * 100
        hostile = Rejection("q", "invalid_message", "a\x00b \ud800", every_byte, 25_600, "\x00" * 10_000, "t\udfff")
        rejections.record(connection, hostile)
        rejections.record(connection, Rejection("q", "malformed_message", "", b"", 0))
        empty, kept = sorted(rejections.recent(connection), key=lambda item: item.body_size)
        assert kept.body == every_byte
        assert (kept.error_message, kept.message_id, kept.message_type) == ("a\ufffdb ?", "\ufffd" * 512, "t?")
        assert (empty.body, empty.message_id, empty.message_type) == (b"", None, None)

    def test_many_record_the_same_at_once(self, engine: Engine) -> None:
        def record() -> None:
            with engine.begin() as connection:
                rejections.record(connection, self.REJECTION)

        at_once([record] * 10)
        with engine.begin() as connection:
            [kept] = rejections.recent(connection)
        assert kept.deliveries == 10


class TestAtOnce:
    def test_the_same_requests_in_other_orders_are_claimed_once(self, engine: Engine) -> None:
        """Nobody deadlocks, and each has one owner."""
        with engine.begin() as connection:
            ids = [ready_program(connection) for _ in range(3)]
        asked = [request(ids[number % 3]) for number in range(60)]
        owners: list[UUID] = []

        def claim(number: int) -> Callable[[], None]:
            def run() -> None:
                mine = random.Random(number).sample(asked, len(asked))
                for start in range(0, len(mine), 20):
                    with engine.begin() as connection:
                        claims = executions.claim(connection, Lease(f"worker-{number}", 60), mine[start : start + 20])
                    owners.extend(claim.id for claim in claims if isinstance(claim, Claimed))
                    assert all(isinstance(claim, Claimed | Running) for claim in claims)

            return run

        at_once([claim(number) for number in range(8)])
        assert sorted(owners) == sorted(item.id for item in asked)
        with engine.begin() as connection:
            kept = executions.get(connection, [item.id for item in asked])
        assert {(item.attempt, item.lock_version) for item in kept} == {(1, 1)}

    def test_expired_leases_are_taken_over_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = [request(program_id) for _ in range(30)]
            executions.claim(connection, Lease("dead", EXPIRED), asked)
        owners: list[UUID] = []

        def claim(number: int) -> Callable[[], None]:
            def run() -> None:
                mine = random.Random(number).sample(asked, len(asked))
                with engine.begin() as connection:
                    claims = executions.claim(connection, Lease(f"worker-{number}", 60), mine)
                owners.extend(claim.id for claim in claims if isinstance(claim, Claimed))

            return run

        at_once([claim(number) for number in range(8)])
        assert sorted(owners) == sorted(item.id for item in asked)

    def test_heartbeats_and_finishes_do_not_deadlock(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
        asked = [request(program_id) for _ in range(120)]
        random.Random(2).shuffle(asked)
        claims: dict[UUID, Claimed] = {}
        for item in asked:  # one by one: the rows are in another order than the ids
            with engine.begin() as connection:
                claims[item.id] = take(connection, item)
        ended = threading.Event()

        def beat() -> None:
            while not ended.is_set():
                with engine.begin() as connection:
                    executions.heartbeat(connection, ALICE)

        def finish() -> None:
            try:
                for start in range(0, len(asked), 20):
                    with engine.begin() as connection:
                        batch = [completed(item, claims[item.id]) for item in asked[start : start + 20]]
                        assert all(executions.finish(connection, 0, batch))
            finally:
                ended.set()

        at_once([beat, beat, finish])
        with engine.begin() as connection:
            assert counted(connection, program_id) == (120, 0)

    def test_a_reader_does_not_wait_for_a_writer(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
        asked = request(program_id)
        with engine.begin() as writer:
            take(writer, asked)
            with engine.connect().execution_options(**READ_ONLY) as reader, reader.begin():
                assert programs.get(reader, program_id).status == ProgramStatus.READY
                assert executions.get(reader, [asked.id]) == []

    def test_statements_are_planned_for_the_tables_as_they_are(self, postgres_database_url: str) -> None:
        """Options of the URL are kept beside ours, and win."""
        for options, jit in (("", "off"), ("?options=-c%20jit%3Don%20-c%20work_mem%3D1MB", "on")):
            engine = make_engine(postgres_database_url + options)
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SHOW plan_cache_mode").scalar_one() == "force_custom_plan"
                assert connection.exec_driver_sql("SHOW jit").scalar_one() == jit
            engine.dispose()

    def test_a_new_file_is_opened_by_many_at_once(self, tmp_path: Path) -> None:
        for number in range(10):
            url = f"sqlite:///{tmp_path / str(number)}.db"

            def use(url: str = url) -> None:
                engine = make_engine(url)
                with engine.begin() as connection:
                    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS a (b)")
                engine.dispose()

            at_once([use] * 12)


@dataclass
class Model:
    """What an execution should be."""

    request: Request
    status: ExecutionStatus
    lock_version: int
    attempt: int
    expired: bool
    row: tuple[Any, ...] | None = None


class Lifecycle(RuleBasedStateMachine):
    """Two workers do anything in any order; what has ended never changes, and the counters are the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.engine = make_engine(f"sqlite:///{Path(self.directory.name) / 'dspex.db'}")
        self.models: dict[UUID, Model] = {}
        self.claims: list[tuple[Request, Claimed]] = []

    @initialize()
    def begin(self) -> None:
        self.connection = self.engine.connect()
        metadata.create_all(self.connection)
        self.program_id = ready_program(self.connection)

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
        self.engine.dispose()
        self.directory.cleanup()

    def of(self, worker: str) -> list[UUID]:
        found = executions.get(self.connection, list(self.models))
        return [item.id for item in found if item.worker == worker and item.status == ExecutionStatus.RUNNING]

    @rule(worker=st.sampled_from("ab"), new=st.integers(0, 2), again=st.lists(st.integers(0, 10), max_size=3))
    def claim(self, worker: str, new: int, again: list[int]) -> None:
        known = [model.request for model in self.models.values()]
        asked = [request(self.program_id) for _ in range(new)] + [known[n] for n in again if n < len(known)]
        answers = executions.claim(self.connection, Lease(worker, 60), asked)
        for item, answer in zip(asked, answers, strict=True):
            model = self.models.get(item.id)
            if model is None:
                model = self.models[item.id] = Model(item, ExecutionStatus.PENDING, 0, 0, expired=False)
            if model.status.terminal:
                assert isinstance(answer, Ended)
            elif model.status == ExecutionStatus.PENDING or model.expired:
                model.status, model.expired = ExecutionStatus.RUNNING, False
                model.lock_version, model.attempt = model.lock_version + 1, model.attempt + 1
                self.claims.append((item, taken(answer)))
                assert answer == Claimed(item.id, model.attempt, model.lock_version, "backend-1")
            else:
                assert answer == Running(item.id)

    @precondition(lambda self: self.claims)
    @rule(
        chosen=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=4),
        shard=st.integers(0, SHARDS - 1),
    )
    def finish(self, chosen: list[tuple[int, bool]], shard: int) -> None:
        ends = [
            (completed if good else failed)(*self.claims[number % len(self.claims)])
            for number, good in {number % len(self.claims): good for number, good in chosen}.items()
        ]
        for end, answer in zip(ends, executions.finish(self.connection, shard, ends), strict=True):
            model = self.models[end.id]
            if model.status == ExecutionStatus.RUNNING and model.lock_version == end.lock_version:
                model.status, model.lock_version = end.status, model.lock_version + 1
                model.expired = False
                model.row = row(self.connection, end.id)
            assert answer == ((end.status, end.lock_version + 1) == (model.status, model.lock_version))

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 30))
    def expire(self, number: int) -> None:
        model = list(self.models.values())[number % len(self.models)]
        if not model.status.terminal:
            expire(self.connection, model.request.id)
            model.expired = True

    @rule(worker=st.sampled_from("ab"))
    def heartbeat(self, worker: str) -> None:
        running = self.of(worker)
        assert executions.heartbeat(self.connection, Lease(worker, 60)) == len(running)
        for execution_id in running:
            self.models[execution_id].expired = False

    @rule(worker=st.sampled_from("ab"))
    def release(self, worker: str) -> None:
        running = self.of(worker)
        assert executions.release(self.connection, Lease(worker, 60)) == len(running)
        for execution_id in running:
            model = self.models[execution_id]
            model.status, model.expired = ExecutionStatus.PENDING, False
            model.lock_version, model.attempt = model.lock_version + 1, model.attempt - 1

    @rule(limit=st.integers(1, 5))
    def rescue(self, limit: int) -> None:
        due = {execution_id for execution_id, model in self.models.items() if model.expired}
        rescued = executions.rescue(self.connection, 60.0, limit)
        assert len(rescued) == min(limit, len(due))
        for item in rescued:
            model = self.models[item.id]
            assert item.id in due
            assert item == model.request
            model.status, model.expired, model.lock_version = ExecutionStatus.PENDING, False, model.lock_version + 1

    @invariant()
    def rows_are_as_they_should_be(self) -> None:
        found = {item.id: item for item in executions.get(self.connection, list(self.models))}
        assert found.keys() == self.models.keys()
        for execution_id, model in self.models.items():
            item = found[execution_id]
            assert (item.status, item.lock_version, item.attempt) == (model.status, model.lock_version, model.attempt)
            if model.row is not None:
                assert row(self.connection, execution_id) == model.row

    @invariant()
    def counters_are_the_rows(self) -> None:
        if not hasattr(self, "connection"):
            return
        rows = executions.count(self.connection, self.program_id)
        ended = (rows.get(ExecutionStatus.COMPLETED, 0), rows.get(ExecutionStatus.FAILED, 0))
        assert counted(self.connection, self.program_id) == ended


Lifecycle.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLifecycle = Lifecycle.TestCase
