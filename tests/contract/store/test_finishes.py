"""Finishes: an execution ends once, by whoever has it, and is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, select

from dspex import ErrorDetail, ExecutionStatus, Usage, uuid7
from dspex.contract.events import ProblemDetail
from dspex.errors import IllegalTransition
from store import counters, executions
from store.counters import Counts
from store.executions import (
    Claimed,
    Ended,
    Finish,
    Lease,
    Request,
)
from store.executions.timeline import TimelineEntry
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ENDS,
    ERROR,
    EXPIRED,
    cancelled,
    chosen,
    claim_now,
    completed,
    counted,
    counted_by_status,
    failed,
    get,
    ready_program,
    request,
    row,
    take,
    taken,
)


class TestReading:
    """`finish_and_read`: what has ended comes with the write, for those that somebody waits for."""

    def test_is_what_a_reader_would_see(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id, zero=-0.0, whole=1e16) for _ in ENDS]
        ends = [
            replace(end(each, take(connection, each)), answered=True) for end, each in zip(ENDS, asked, strict=True)
        ]
        done = executions.finish_and_read(connection, 0, ends)
        assert done == [(True, get(connection, each.id)) for each in asked]
        moments = [moment for _, row in done if row for moment in (row.inserted_at, row.started_at, row.finished_at)]
        assert {moment.utcoffset() for moment in moments if moment} == {timedelta(0)}

    def test_outputs_beside_the_signature_are_apart(self, connection: Connection) -> None:
        extras = {"reasoning": "so", "sources": [{"page": 3}]}
        asked = request(ready_program(connection))
        end = replace(completed(asked, take(connection, asked)), answered=True, extra_outputs=extras)
        ((_, read),) = executions.finish_and_read(connection, 0, [end])
        assert read == get(connection, asked.id)
        assert read is not None
        assert (read.outputs, read.extra_outputs) == (end.outputs, extras)
        (result,) = executions.results(connection, [asked.id])
        assert (result.outputs, result.extra_outputs) == (end.outputs, extras)

    def test_only_those_that_are_waited_for_and_held(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        waited, other, lost = (request(program_id) for _ in range(3))
        ends = [completed(each, take(connection, each, BOB)) for each in (waited, other, lost)]
        executions.release(connection, BOB, [lost.identity])
        done = executions.finish_and_read(connection, 0, [replace(end, answered=end is not ends[1]) for end in ends])
        assert done == [(True, get(connection, waited.id)), (True, None), (False, None)]

    def test_what_the_commit_before_has_written(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        end = replace(completed(asked, take(connection, asked)), answered=True)
        assert executions.finish(connection, 0, [end]) == [True]
        assert executions.finish_and_read(connection, 0, [end]) == [(True, get(connection, asked.id))]
        assert counted(connection, asked.program_id) == (1, 0)


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
            updated_at=kept.updated_at,
            lock_version=2,
            timeline=(*before.timeline, TimelineEntry("completed", kept.timeline[-1].at, 1, "alice")),
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
            tokens_known=1,
            cost_known=1,
            last_executed_at=totals.last_executed_at,
        )
        assert totals.last_executed_at is not None

    def test_failed(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        assert executions.finish(connection, 3, [failed(asked, take(connection, asked))]) == [True]
        kept = get(connection, asked.id)
        assert (kept.status, kept.error, kept.outputs) == (ExecutionStatus.FAILED, ERROR, None)
        assert counted(connection, asked.program_id) == (0, 1)

    def test_cancelled(self, connection: Connection) -> None:
        """It may say why. What it used is counted, its duration is not: it says nothing of how long a run takes."""
        program_id = ready_program(connection)
        ends = []
        for error in (None, ERROR):
            asked = request(program_id)
            ends.append(replace(cancelled(asked, take(connection, asked)), error=error))
        assert executions.finish(connection, 3, ends) == [True, True]
        for end in ends:
            kept = get(connection, end.id)
            assert (kept.status, kept.error, kept.outputs) == (ExecutionStatus.CANCELLED, end.error, None)
            assert kept.status.terminal
            assert kept.duration_ms == 3.0
        totals = counters.totals(connection, program_id)
        used = Counts(cancelled=2, input_tokens=8, tokens_known=2, cost_known=2)
        assert totals == replace(used, last_executed_at=totals.last_executed_at)
        assert totals.last_executed_at is not None
        assert counters.durations(connection, program_id) == {}

    def test_what_lists_and_statistics_look_at_is_copied(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        good, bad = request(program_id), request(program_id)
        ends = [completed(good, take(connection, good)), failed(bad, take(connection, bad))]
        executions.finish(connection, 0, ends)
        c = executions_table.c
        columns = select(c.error_code, c.input_tokens, c.output_tokens, c.cost)
        assert connection.execute(columns.where(c.id == good.id)).one() == (None, 10, 2, 0.25)
        assert connection.execute(columns.where(c.id == bad.id)).one() == ("timeout", None, None, None)

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
        before, counts = row(connection, asked.id), counted_by_status(connection, asked.program_id)
        claim_now(connection, BOB, [asked])
        claim_now(connection, ALICE, [request(asked.program_id, asked.id, question="other")])
        assert executions.heartbeat(connection, ALICE).extended == 0
        assert executions.release(connection, ALICE) == 0
        assert executions.rescue(connection, 10) == []
        with pytest.raises(IllegalTransition):
            executions.cancel(connection, asked.id, by="somebody")
        assert isinstance(executions.claim(connection, ALICE, [asked], now=[False])[0], Ended)
        assert isinstance(executions.claim_alone(connection, ALICE, [asked])[0], Ended)
        assert chosen(connection) == []
        assert executions.adopt(connection, 10) == 0
        for version in range(5):
            later = replace(claimed, lock_version=version)
            executions.finish(connection, 0, [completed(asked, later), failed(asked, later)])
        assert row(connection, asked.id) == before
        assert counted_by_status(connection, asked.program_id) == counts

    def test_many_of_many_programs(self, connection: Connection) -> None:
        ids = [ready_program(connection) for _ in range(5)]
        asked = [request(ids[number % 5]) for number in range(60)]
        claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
        ends = [
            (failed if number % 4 == 0 else completed)(item, claim)
            for number, (item, claim) in enumerate(zip(asked, claims, strict=True))
        ]
        assert executions.finish(connection, 1, ends) == [True] * 60
        for program_id in ids:
            rows = executions.count(connection, program_id).by_status
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
