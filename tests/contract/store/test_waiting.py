"""Executions one by one: accepted, cancelled; and the timeline that every change writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine

from dspex import ExecutionStatus, uuid7
from dspex.errors import IllegalTransition, NotFound
from store import counters, executions
from store.counters import Counts
from store.executions import (
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Execution,
    Finish,
    Heartbeat,
    NoProgram,
    Request,
    Running,
    Waiting,
)
from store.executions.timeline import MAX_ENTRIES
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ENDS,
    EXPIRED,
    accept,
    at_once,
    cancelled,
    claim_now,
    clock,
    completed,
    counted_by_status,
    ended_by_status,
    expire,
    failed,
    get,
    ready_program,
    request,
    row,
    take,
    told,
)


class TestWaiting:
    def test_is_pending(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        before = clock(connection)
        accept(connection, asked)
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 0, 1)
        assert (kept.worker, kept.started_at) == (None, None)
        assert before <= kept.inserted_at <= clock(connection)
        assert told(connection, asked.id) == [("pending", 0, "alice")]
        assert counted_by_status(connection, asked.program_id) == {}

    def test_again_changes_nothing_whatever_has_become_of_it(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        accept(connection, asked)
        before = row(connection, asked.id)
        accept(connection, replace(asked, source="/other"))
        assert row(connection, asked.id) == before
        claimed = take(connection, asked)
        before = row(connection, asked.id)
        assert executions.claim(connection, BOB, [asked], now=[False]) == [Running(asked.id)]
        assert row(connection, asked.id) == before
        executions.finish(connection, 0, [completed(asked, claimed)])
        before = row(connection, asked.id)
        assert executions.claim(connection, BOB, [asked], now=[False]) == [Ended(get(connection, asked.id))]
        assert row(connection, asked.id) == before

    def test_the_id_of_another_request(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = request(program_id)
        accept(connection, asked)
        before = row(connection, asked.id)
        for other in (
            request(program_id, asked.id, question="how?"),
            request(ready_program(connection), asked.id),
            request(uuid7(), asked.id),
        ):
            for place in (True, False):
                assert executions.claim(connection, ALICE, [other], now=[place]) == [Conflicting(asked.id)]
        assert row(connection, asked.id) == before

    def test_many_accept_and_claim_the_same_at_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            asked = request(ready_program(connection))
        claims = list[Claim]()

        def claim(place: bool) -> Callable[[], None]:
            def run() -> None:
                with engine.begin() as connection:
                    claims.extend(executions.claim(connection, ALICE, [asked], now=[place]))

            return run

        def alone() -> None:
            with engine.begin() as connection:
                claims.extend(executions.claim_alone(connection, ALICE, [asked]))

        at_once([claim(place=False), claim(place=True), alone] * 3)
        with engine.begin() as connection:
            claims.extend(executions.claim_alone(connection, ALICE, [asked]))
        # One that looks while another is just taking it is told that it waits; before it is there, that it is not.
        taken = [claim for claim in claims if isinstance(claim, Claimed)]
        assert len(taken) == 1
        assert all(isinstance(claim, Running | Waiting | NoProgram) for claim in claims if claim not in taken)


class TestCancel:
    def test_what_is_pending_ends_at_once(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        accept(connection, asked)
        ended = executions.cancel(connection, asked.id, by="ann", shard=5)
        assert ended == get(connection, asked.id)
        assert (ended.status, ended.lock_version, ended.attempt) == (ExecutionStatus.CANCELLED, 2, 0)
        assert ended.finished_at is not None
        assert told(connection, asked.id) == [("pending", 0, "alice"), ("cancelled", 0, "ann")]
        assert counters.totals(connection, asked.program_id) == Counts(cancelled=1, tokens_known=1, cost_known=1)
        assert claim_now(connection, ALICE, [asked]) == [Ended(ended)]
        assert executions.rescue(connection, 10) == []

    def test_what_is_not_there(self, connection: Connection) -> None:
        unknown = uuid7()
        with pytest.raises(NotFound, match=str(unknown)):
            executions.cancel(connection, unknown, by="somebody")

    def test_what_is_running_is_marked_and_its_worker_told(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked, other = request(program_id), request(program_id)
        claimed = take(connection, asked)
        take(connection, other)
        for _ in range(2):
            marked = executions.cancel(connection, asked.id, by="ann")
            assert marked == get(connection, asked.id)
            assert (marked.status, marked.lock_version) == (ExecutionStatus.RUNNING, claimed.lock_version)
            assert marked.cancel_requested
        assert executions.heartbeat(connection, ALICE) == Heartbeat(2, frozenset({asked.identity}))
        assert executions.heartbeat(connection, ALICE, [other.identity]) == Heartbeat(1, frozenset())
        assert counted_by_status(connection, program_id) == {}
        assert executions.finish(connection, 0, [cancelled(asked, claimed)]) == [True]
        assert told(connection, asked.id) == [
            ("running", 1, "alice"),
            ("cancel_requested", 1, "ann"),
            ("cancelled", 1, "alice"),
        ]
        assert counted_by_status(connection, program_id) == {ExecutionStatus.CANCELLED: 1}

    @pytest.mark.parametrize("end", ENDS)
    def test_how_it_ends_then_is_the_workers_to_say(
        self, connection: Connection, end: Callable[[Request, Claimed], Finish]
    ) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        executions.cancel(connection, asked.id, by="ann")
        finish = end(asked, claimed)
        assert executions.finish(connection, 0, [finish]) == [True]
        assert get(connection, asked.id).status == finish.status

    def test_what_has_ended_is_refused(self, connection: Connection) -> None:
        for end in ENDS:
            asked = request(ready_program(connection))
            executions.finish(connection, 0, [end(asked, take(connection, asked))])
            before = row(connection, asked.id)
            with pytest.raises(IllegalTransition, match=f"{asked.id} cannot be cancelled: it is {end.__name__}"):
                executions.cancel(connection, asked.id, by="ann")
            assert row(connection, asked.id) == before

    @pytest.mark.parametrize("given_up", [True, False])
    def test_when_its_worker_is_gone_whoever_claims_it_next_is_told(
        self, connection: Connection, given_up: bool
    ) -> None:
        asked = request(ready_program(connection))
        assert not take(connection, asked).cancel_requested
        executions.cancel(connection, asked.id, by="ann")
        if given_up:
            executions.release(connection, ALICE)
        else:
            expire(connection, asked.id)
            assert executions.rescue(connection, 10) == [asked.identity]
        claimed = take(connection, asked, BOB)
        assert claimed.cancel_requested
        assert executions.finish(connection, 0, [cancelled(asked, claimed)]) == [True]

    def test_again_after_its_worker_gave_it_up_it_ends_at_once(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.cancel(connection, asked.id, by="ann")
        executions.release(connection, ALICE)
        ended = executions.cancel(connection, asked.id, by="bea")
        assert ended.status == ExecutionStatus.CANCELLED
        assert [entry.by for entry in ended.timeline] == ["alice", "ann", "alice", "bea"]
        assert counters.totals(connection, asked.program_id).last_executed_at is not None

    def test_against_a_claim_one_of_them_comes_first(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
        for _ in range(20):
            asked = request(program_id)
            with engine.begin() as connection:
                accept(connection, asked)
            claims, ends = list[Claim](), list[Execution]()

            def claim(asked: Request = asked, claims: list[Claim] = claims) -> None:
                with engine.begin() as connection:
                    claims.extend(executions.claim_alone(connection, ALICE, [asked]))

            def cancel(asked: Request = asked, ends: list[Execution] = ends) -> None:
                with engine.begin() as connection:
                    ends.append(executions.cancel(connection, asked.id, by="ann"))

            at_once([claim, cancel])
            [claimed], [end] = claims, ends
            if end.status == ExecutionStatus.CANCELLED:
                assert isinstance(claimed, Ended | Waiting)  # a claim passes over what is just being cancelled
            else:
                assert isinstance(claimed, Claimed)
                with engine.begin() as connection:
                    assert asked.identity in executions.heartbeat(connection, ALICE).cancel_requested
                    assert executions.finish(connection, 1, [cancelled(asked, claimed)]) == [True]
        with engine.begin() as connection:
            assert counted_by_status(connection, program_id) == {ExecutionStatus.CANCELLED: 20}
            assert ended_by_status(connection, program_id) == {ExecutionStatus.CANCELLED: 20}

    def test_against_a_finish_one_of_them_comes_first(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
        for _ in range(20):
            asked = request(program_id)
            with engine.begin() as connection:
                claimed = take(connection, asked)

            def finish(asked: Request = asked, claimed: Claimed = claimed) -> None:
                with engine.begin() as connection:
                    assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]

            def cancel(asked: Request = asked) -> None:
                with engine.begin() as connection, suppress(IllegalTransition):
                    executions.cancel(connection, asked.id, by="ann")

            at_once([finish, cancel])
        with engine.begin() as connection:
            assert counted_by_status(connection, program_id) == {ExecutionStatus.COMPLETED: 20}


class TestTimeline:
    def test_has_every_change(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        accept(connection, asked)
        take(connection, asked)
        executions.release(connection, ALICE)
        take(connection, asked, replace(ALICE, seconds=EXPIRED))
        executions.rescue(connection, 10, by="relay of c")
        claimed = take(connection, asked, BOB)
        executions.finish(connection, 0, [failed(asked, claimed)])
        assert told(connection, asked.id) == [
            ("pending", 0, "alice"),
            ("running", 1, "alice"),
            ("pending", 0, "alice"),
            ("running", 1, "alice"),
            ("pending", 1, "relay of c"),
            ("running", 2, "bob"),
            ("failed", 2, "bob"),
        ]

    def test_keeps_the_last(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        for _ in range(MAX_ENTRIES):
            take(connection, asked)
            executions.release(connection, ALICE)
        entries = told(connection, asked.id)
        assert len(entries) == MAX_ENTRIES
        assert entries == [("running", 1, "alice"), ("pending", 0, "alice")] * (MAX_ENTRIES // 2)
        executions.cancel(connection, asked.id, by="ann")
        assert told(connection, asked.id) == [*entries[1:], ("cancelled", 0, "ann")]

    def test_names_of_any_kind(self, connection: Connection) -> None:
        name = 'ann\'s "worker" \\ {ü} %s :a $.b'
        asked = request(ready_program(connection))
        take(connection, asked, replace(ALICE, worker=name))
        executions.cancel(connection, asked.id, by=name)
        assert told(connection, asked.id) == [("running", 1, name), ("cancel_requested", 1, name)]
