"""Attempts after which there is another, schedules, deadlines and policies, as the rows keep them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, Usage
from dspex.contract.retry_policy import ExecutionPolicy
from store import counters, executions, programs
from store.counters import Counts
from store.executions import Carried, Claimed, Conflicting, Ended, NoProgram, Retry, Running, Waiting
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    EXPIRED,
    accept,
    chosen,
    claim_now,
    completed,
    get,
    keep_program,
    ready_program,
    request,
    take,
    told,
)

USED = Usage(calls=1, input_tokens=3, output_tokens=2, cost=0.5)


def retry_of(claimed: Claimed, delay: float = 60.0, **changes: object) -> Retry:
    attempt = Retry(claimed.id, claimed.lock_version, delay, claimed.attempt, ERROR, USED, Carried(1, 2.5, True))
    return replace(attempt, **changes)  # type: ignore[arg-type]


class TestRetry:
    def test_waits_and_then_goes_on_with_what_was_carried(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        assert executions.retry(connection, [retry_of(claimed, EXPIRED)]) == [True]
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 1, 2)
        assert (kept.error, kept.usage, kept.outputs) == (ERROR, USED, None)
        again = take(connection, asked, BOB)
        assert (again.attempt, again.lock_version, again.usage, again.lost) == (2, 3, USED, 0)
        assert again.carried == Carried(1, 2.5, True)
        assert executions.finish(connection, 0, [completed(asked, again)]) == [True]
        ended = get(connection, asked.id)
        assert (ended.error, ended.attempt) == (None, 2)
        assert [entry[:2] for entry in told(connection, asked.id)] == [
            *(("running", 1), ("pending", 1)),
            *(("running", 2), ("completed", 2)),
        ]

    def test_a_wait_for_a_rate_limit_has_taken_what_the_clock_says(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        limited = ErrorDetail(code="rate_limited", message="slow down")
        # Due an hour ago: no worker had time.
        executions.retry(connection, [retry_of(take(connection, asked), -3600, error=limited, carried=Carried(1, 2.5))])
        again = take(connection, asked, BOB)
        assert again.carried.waits == 1
        assert 3602.4 <= again.carried.waited <= 3660
        # After another failure nothing is added, however late it is: that was no such wait.
        executions.retry(connection, [retry_of(again, -3600, carried=Carried(1, 2.5))])
        assert take(connection, asked, BOB).carried == Carried(1, 2.5)

    def test_is_claimed_by_nobody_before_it_is_due(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        executions.retry(connection, [retry_of(claimed)])
        assert claim_now(connection, BOB, [asked]) == [Waiting(asked.id)]
        assert chosen(connection, BOB) == []
        assert executions.claim_alone(connection, BOB, [asked]) == [Waiting(asked.id)]
        assert not executions.anything_due(connection)

    def test_of_a_claim_that_was_taken_over_changes_nothing(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        zombie = take(connection, asked)
        executions.release(connection, ALICE)
        claimed = take(connection, asked, BOB)
        before = get(connection, asked.id)
        assert executions.retry(connection, [retry_of(zombie)]) == [False]
        assert get(connection, asked.id) == before
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]
        assert executions.retry(connection, [retry_of(claimed)]) == [False]

    def test_made_twice_is_made_once(self, connection: Connection) -> None:
        """As where the commit arrived and its answer did not."""
        asked = request(ready_program(connection))
        attempt = retry_of(take(connection, asked))
        assert executions.retry(connection, [attempt, attempt]) == [True, True]
        kept = get(connection, asked.id)
        assert executions.retry(connection, [attempt]) == [True]
        assert get(connection, asked.id) == kept

    def test_what_was_used_is_counted_when_it_is_cancelled(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        executions.retry(connection, [retry_of(take(connection, asked))])
        ended = executions.cancel(connection, asked.id, by="ann")
        assert (ended.status, ended.usage) == (ExecutionStatus.CANCELLED, USED)
        totals = counters.totals(connection, asked.program_id)
        used = Counts(cancelled=1, input_tokens=3, output_tokens=2, cost=0.5, tokens_known=1, cost_known=1)
        assert replace(totals, last_executed_at=None) == used


class TestTime:
    def test_what_is_scheduled_is_pending_and_due_then(self, connection: Connection) -> None:
        at = datetime.now(UTC) + timedelta(hours=1)
        asked = replace(request(ready_program(connection)), options=ExecutionOptions(not_before=at))
        assert claim_now(connection, ALICE, [asked]) == [Waiting(asked.id)]
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version, kept.not_before) == (ExecutionStatus.PENDING, 0, 1, at)
        assert (kept.started_at, kept.worker) == (None, None)
        assert claim_now(connection, BOB, [asked]) == [Waiting(asked.id)]
        assert chosen(connection, BOB) == []

    def test_what_was_scheduled_for_a_moment_that_is_past_is_claimed(self, connection: Connection) -> None:
        at = datetime.now(UTC) - timedelta(seconds=5)
        asked = replace(request(ready_program(connection)), options=ExecutionOptions(not_before=at))
        assert take(connection, asked).attempt == 1

    def test_what_is_to_run_later_waits_until_then(self, connection: Connection) -> None:
        past, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
        program_id = ready_program(connection)
        due, waiting = (
            replace(request(program_id), options=ExecutionOptions(not_before=moment)) for moment in (past, later)
        )
        accept(connection, due, waiting)
        assert chosen(connection) == [due]

    def test_a_deadline_is_judged_by_the_database(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        for hours in (-1, 1):
            deadline = datetime.now(UTC) + timedelta(hours=hours)
            asked = replace(request(program_id), options=ExecutionOptions(deadline=deadline))
            left = take(connection, asked).seconds_left
            assert left is not None
            assert left == pytest.approx(3600 * hours, abs=60)


class TestPolicy:
    def test_comes_with_the_claim_as_it_is_then(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        first = request(program_id)
        assert take(connection, first).policy == ExecutionPolicy()
        policy = ExecutionPolicy(max_attempts=9, time_limit=2.5, repair=False)
        configuration = programs.get(connection, program_id).configuration
        programs.update(connection, program_id, configuration=configuration, policy=policy, backend_id="b")
        assert take(connection, request(program_id)).policy == policy
        executions.release(connection, ALICE)
        assert take(connection, first).policy == policy
        unchanged = programs.update(connection, program_id, configuration=configuration, backend_id="b")
        assert unchanged.policy == policy
        reset = programs.update(
            connection, program_id, configuration=configuration, policy=ExecutionPolicy(), backend_id="b"
        )
        assert reset.policy == ExecutionPolicy()


class TestKeys:
    def test_the_first_stands_for_all(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [replace(request(program_id), idempotency_key="k") for _ in range(3)]
        first, *others = claim_now(connection, ALICE, asked)
        assert isinstance(first, Claimed)
        assert first.id == asked[0].id
        assert others == [Running(first.id)] * 2
        executions.finish(connection, 0, [completed(asked[0], first)])
        ended = Ended(get(connection, first.id))
        assert claim_now(connection, BOB, asked) == [ended] * 3
        assert get(connection, first.id).lock_version == 2
        assert [executions.get(connection, [item.id]) for item in asked[1:]] == [[], []]

    def test_another_body_is_a_conflict(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = replace(request(program_id), idempotency_key="k")
        other = replace(request(program_id, question="how?"), idempotency_key="k")
        claims = claim_now(connection, ALICE, [asked, other, request(program_id)])
        assert [type(claim) for claim in claims] == [Claimed, Conflicting, Claimed]
        assert claim_now(connection, ALICE, [other]) == [Conflicting(other.id, by_key=True)]

    def test_an_id_with_another_key_and_the_same_body_is_the_same_request(self, connection: Connection) -> None:
        asked = replace(request(ready_program(connection)), idempotency_key="k")
        take(connection, asked)
        assert claim_now(connection, BOB, [replace(asked, idempotency_key="l")]) == [Running(asked.id)]

    def test_a_key_that_came_to_nothing_is_free(self, connection: Connection) -> None:
        draft = keep_program(connection)
        nobody = replace(request(draft), program_id=request(draft).id, idempotency_key="k")
        assert claim_now(connection, ALICE, [nobody]) == [NoProgram(nobody.id)]
        taken_id = take(connection, request(ready_program(connection))).id
        conflicting = replace(request(draft, taken_id, question="how?"), idempotency_key="k")
        assert claim_now(connection, ALICE, [conflicting]) == [Conflicting(taken_id)]
        asked = replace(request(draft), idempotency_key="k")
        assert take(connection, asked).id == asked.id

    def test_a_conflict_takes_no_key_from_who_has_it(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = replace(request(program_id), idempotency_key="k")
        claimed = take(connection, asked)
        wrong = replace(request(program_id, asked.id, question="how?"), idempotency_key="k")
        assert claim_now(connection, BOB, [wrong]) == [Conflicting(asked.id, by_key=True)]
        again = replace(request(program_id), idempotency_key="k")
        assert claim_now(connection, BOB, [again]) == [Running(claimed.id)]

    def test_is_the_tenants_own(self, connection: Connection) -> None:
        mine = replace(request(ready_program(connection)), idempotency_key="k")
        theirs = replace(request(mine.program_id), idempotency_key="k", tenant="acme")
        assert isinstance(take(connection, mine), Claimed)
        assert claim_now(connection, ALICE, [theirs]) == [NoProgram(theirs.id)]


def test_an_error_of_an_attempt_may_quote_anything(connection: Connection) -> None:
    claimed = take(connection, request(ready_program(connection)))
    error = ErrorDetail(code="transient", message="nul \x00 half \ud800")
    assert executions.retry(connection, [retry_of(claimed, error=error)]) == [True]
