"""Claims: who may run an execution, and what the others are told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from dspex import ExecutionOptions, ExecutionStatus, Usage, uuid7
from store import executions, programs
from store.executions import Claimed, Conflicting, Ended, Finish, Lease, NoProgram, Request, Running
from store.executions.timeline import TimelineEntry
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ENDS,
    EXPIRED,
    claim_now,
    clock,
    completed,
    counted,
    expire,
    failed,
    get,
    keep_program,
    ready_program,
    request,
    row,
    take,
)


class TestClaim:
    def test_new(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = Request(
            uuid7(), program_id, {"question": "why?"}, ExecutionOptions(seed=7), "/shop", f"00-{'a' * 32}-{'b' * 16}-01"
        )
        before = clock(connection)
        [claimed] = claim_now(connection, ALICE, [asked])
        after = clock(connection)
        assert claimed == Claimed(asked.id, attempt=1, lock_version=1, backend_id="backend-1")
        kept = get(connection, asked.id)
        assert before <= kept.inserted_at <= after
        assert kept == executions.Execution(
            id=asked.id,
            program_id=program_id,
            status=ExecutionStatus.RUNNING,
            inputs={"question": "why?"},
            options=ExecutionOptions(seed=7),
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
            updated_at=kept.updated_at,
            finished_at=None,
            lock_version=1,
            tenant="default",
            cancel_requested=False,
            timeline=(TimelineEntry("running", kept.timeline[0].at, 1, "alice"),),
            request_digest=asked.digest,
        )
        assert before <= kept.timeline[0].at <= after

    def test_nothing(self, connection: Connection) -> None:
        assert claim_now(connection, ALICE, []) == []

    def test_answers_in_the_order_of_the_requests(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id if number % 3 else uuid7()) for number in range(20)]
        random.Random(1).shuffle(asked)
        claims = claim_now(connection, ALICE, asked)
        assert [claim.id for claim in claims if not isinstance(claim, Ended)] == [item.id for item in asked]
        for item, claim in zip(asked, claims, strict=True):
            assert isinstance(claim, Claimed if item.program_id == program_id else NoProgram)

    def test_twice_in_a_batch_is_claimed_once(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        other = request(program_id, asked.id, question="something else")
        claims = claim_now(connection, ALICE, [asked, asked, replace(asked), other, request(program_id), other])
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
        assert claim_now(connection, ALICE, [other, asked, asked, other]) == [*both, *reversed(both)]
        unknown = request(uuid7())
        good = request(program_id, unknown.id)
        claims = claim_now(connection, ALICE, [unknown, unknown, good, good])
        assert [type(claim) for claim in claims] == [NoProgram, NoProgram, Claimed, Running]

    def test_what_runs_elsewhere(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        before = row(connection, asked.id)
        for lease in (BOB, ALICE):
            assert claim_now(connection, lease, [asked]) == [Running(asked.id)]
        assert row(connection, asked.id) == before

    @pytest.mark.parametrize("end", ENDS)
    def test_what_has_ended(self, connection: Connection, end: Callable[[Request, Claimed], Finish]) -> None:
        asked = request(ready_program(connection))
        executions.finish(connection, 0, [end(asked, take(connection, asked))])
        before = row(connection, asked.id)
        assert claim_now(connection, BOB, [asked]) == [Ended(get(connection, asked.id))]
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
                assert claim_now(connection, BOB, [other]) == [Conflicting(asked.id)]
            assert row(connection, asked.id) == before

    def test_who_asks_and_from_where_is_not_part_of_the_request(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        assert claim_now(connection, BOB, [replace(asked, source="/other")]) == [Running(asked.id)]

    def test_no_program(self, connection: Connection) -> None:
        asked = request(uuid7())
        assert claim_now(connection, ALICE, [asked]) == [NoProgram(asked.id)]
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
        assert (second.attempt, second.lock_version) == (first.attempt + 1, first.lock_version + 2)
        kept = get(connection, asked.id)
        assert (kept.worker, kept.attempt, kept.inserted_at) == ("bob", 2, inserted.inserted_at)
        assert claim_now(connection, ALICE, [asked]) == [Running(asked.id)]

    def test_again_what_is_pending(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.release(connection, ALICE)
        second = take(connection, asked, BOB)
        assert (second.attempt, second.lock_version) == (1, 3)

    def test_all_but_some_are_given_back(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        kept, lost, others = request(program_id), request(program_id), request(program_id)
        for asked, lease in ((kept, ALICE), (lost, ALICE), (others, BOB)):
            take(connection, asked, lease)
        assert executions.release(connection, ALICE, besides=[kept.identity]) == 1
        assert get(connection, lost.id).status == ExecutionStatus.PENDING
        assert {get(connection, one.id).status for one in (kept, others)} == {ExecutionStatus.RUNNING}

    def test_again_takes_the_program_as_it_is_now(self, connection: Connection) -> None:
        program_id = keep_program(connection)
        asked = request(program_id)
        assert take(connection, asked, Lease("alice", EXPIRED)).backend_id is None
        programs.end_initialize(connection, programs.begin_initialize(connection, program_id), "b")
        assert take(connection, asked).backend_id == "b"
