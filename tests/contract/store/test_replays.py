"""Failed executions as dead letters: replays keep the history and the sums, and are safe to repeat."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, func, select, update

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, Usage, uuid7
from store import counters, event_outbox, executions, programs, statistics
from store.executions import (
    Carried,
    Claimed,
    Ended,
    Finish,
    Request,
    Retry,
    Waiting,
)
from store.tables import executions as executions_table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    accept,
    at_once,
    chosen,
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
    waits_for_a_lock,
)
from tests.waiting import wait_until

AUTH = ErrorDetail(code="auth", message="no key")


def fail(
    connection: Connection, asked: Request, *, error: ErrorDetail = ERROR, shard: int = 0, **changes: Any
) -> Claimed:
    """An execution that ran and failed; returns what its worker had claimed."""
    claimed = take(connection, asked)
    usage = Usage(calls=1, input_tokens=7, output_tokens=3, cost=0.5)
    end = replace(failed(asked, claimed, error), usage=claimed.usage + usage, **changes)
    assert executions.finish(connection, shard, [end]) == [True]
    return claimed


def replay(connection: Connection, *asked: Request, shard: int = 0) -> int:
    return executions.replay(connection, [item.id for item in asked], by="ann", shard=shard)


def discard(connection: Connection, *asked: Request) -> int:
    return executions.discard(connection, [item.id for item in asked], by="ann")


def sums(connection: Connection, program_id: UUID) -> tuple[Any, ...]:
    """What the counters say."""
    totals = counters.totals(connection, program_id)
    cost, duration = round(totals.cost, 6), round(totals.duration_ms, 6)
    return totals.executions, totals.input_tokens, totals.output_tokens, cost, duration


def sums_of_rows(connection: Connection, program_id: UUID) -> tuple[Any, ...]:
    """What the rows that have ended say."""
    c = executions_table.c
    columns = c.id, c.input_tokens, c.output_tokens, c.cost, c.duration_ms
    where = c.program_id == program_id, c.status.in_(("completed", "failed"))
    rows = connection.execute(select(*columns).where(*where)).all()
    sums = (sum(row[index] or 0 for row in rows) for index in range(1, 5))
    return (len(rows), *(round(number, 6) for number in sums))


class TestReplay:
    def test_it_is_pending_and_due_with_its_history(self, connection: Connection) -> None:
        options = ExecutionOptions(deadline=datetime.now(UTC) + timedelta(hours=1))
        asked = replace(request(ready_program(connection)), options=options, reply_to="replies", correlation_id="c")
        fail(connection, asked)
        before = get(connection, asked.id)
        assert replay(connection, asked) == 1
        found = dict(zip(executions_table.c.keys(), row(connection, asked.id), strict=True))
        nothing = ("lease_expires_at", "not_before", "deadline", "carried", "outputs", "duration_ms", "finished_at")
        assert {name: found[name] for name in nothing} == dict.fromkeys(nothing)
        after = get(connection, asked.id)
        assert (after.status, after.attempt, found["lost"]) == (ExecutionStatus.PENDING, 0, 0)
        assert after.lock_version == before.lock_version + 1
        assert (after.error, found["error_code"], after.usage) == (ERROR, "timeout", before.usage)
        assert (after.reply_to, after.correlation_id, after.inserted_at) == (
            "replies",
            "c",
            before.inserted_at,
        )
        assert told(connection, asked.id) == [("running", 1, "alice"), ("failed", 1, "alice"), ("pending", 0, "ann")]
        assert found["run_at"] <= clock(connection)
        assert [item.id for item in chosen(connection)] == [asked.id]

    def test_it_has_all_its_attempts_and_adds_to_what_was_used(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        first = take(connection, asked)
        used = Usage(calls=1, input_tokens=4)
        assert executions.retry(connection, [Retry(asked.id, first.lock_version, 0, 1, ERROR, used, Carried(1, 2.0))])
        connection.execute(update(executions_table).values(lost=2, not_before=None))
        fail(connection, asked)
        replay(connection, asked)
        again = take(connection, asked, BOB)
        assert (again.attempt, again.lost, again.carried, again.seconds_left) == (1, 0, Carried(), None)
        assert (again.usage.calls, again.usage.input_tokens) == (2, 11)

    def test_what_was_counted_is_taken_back_and_the_next_end_counts(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        kept, asked = request(program_id), request(program_id)
        fail(connection, kept)
        before = sums(connection, program_id), counters.durations(connection, program_id)
        fail(connection, asked, shard=3, duration_ms=12345.678)
        assert replay(connection, asked, shard=1) == 1
        assert (sums(connection, program_id), counters.durations(connection, program_id)) == before
        assert sums(connection, program_id) == sums_of_rows(connection, program_id)
        claimed = take(connection, asked, BOB)
        end = completed(asked, claimed)
        assert executions.finish(connection, 2, [replace(end, usage=claimed.usage + end.usage)]) == [True]
        assert sums(connection, program_id) == sums_of_rows(connection, program_id) == (2, 24, 8, 1.25, 20.0)
        assert counted_by_status(connection, program_id) == ended_by_status(connection, program_id)
        assert get(connection, asked.id).error is None

    def test_a_program_whose_executions_are_all_replayed_has_run_nothing(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        fail(connection, asked)
        last = counters.totals(connection, asked.program_id).last_executed_at
        replay(connection, asked, shard=5)
        all_time = statistics.all_time(connection, asked.program_id)
        assert (all_time.total, all_time.input_tokens, all_time.cost) == (0, 0, 0.0)
        assert (all_time.tokens_known, all_time.cost_known) == (0, 0)
        assert (all_time.p50_duration_ms, all_time.average_duration_ms) == (None, None)
        assert all_time.last_executed_at == last

    def test_the_event_of_the_end_that_is_taken_back_is_gone(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        fail(connection, asked)
        assert event_outbox.pending(connection, [asked.id]) == {asked.id}
        replay(connection, asked)
        assert event_outbox.pending(connection, [asked.id]) == set()
        fail(connection, asked)
        assert event_outbox.pending(connection, [asked.id]) == {asked.id}

    def test_again_changes_nothing(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        pending, running, done, cancelled = (request(program_id) for _ in range(4))
        for item in (pending, running, done):
            fail(connection, item)
        assert replay(connection, pending, running, done, pending) == 3
        take(connection, running)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        accept(connection, cancelled)
        executions.cancel(connection, cancelled.id, by="ann")
        everything = pending, running, done, cancelled
        before = [row(connection, item.id) for item in everything], sums(connection, program_id)
        assert replay(connection, *everything, request(program_id)) == 0
        assert ([row(connection, item.id) for item in everything], sums(connection, program_id)) == before

    def test_whoever_ran_it_before_is_fenced(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        stale = take(connection, asked)
        expire(connection, asked.id)
        executions.rescue(connection, 10)
        fail(connection, asked)
        for state in ("pending", "running"):
            if state == "pending":
                replay(connection, asked)
            else:
                take(connection, asked, BOB)
            before = row(connection, asked.id), sums(connection, asked.program_id)
            for end in (completed(asked, stale), failed(asked, stale)):
                assert executions.finish(connection, 0, [end]) == [False]
            lost = Retry(asked.id, stale.lock_version, 0, 1, ERROR, Usage(), Carried())
            assert executions.retry(connection, [lost]) == [False]
            assert (row(connection, asked.id), sums(connection, asked.program_id)) == before

    def test_the_first_message_again_runs_it_once(self, connection: Connection) -> None:
        asked = replace(request(ready_program(connection)), idempotency_key="order 7")
        fail(connection, asked)
        assert isinstance(claim_now(connection, ALICE, [asked])[0], Ended)
        replay(connection, asked)
        assert claim_now(connection, ALICE, [asked, replace(asked, id=uuid7())]) == [Waiting(asked.id)] * 2
        assert [item.id for item in chosen(connection)] == [asked.id]

    def test_one_that_was_to_be_cancelled_runs(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        claimed = take(connection, asked)
        executions.cancel(connection, asked.id, by="bob")
        executions.finish(connection, 0, [failed(asked, claimed)])
        replay(connection, asked)
        assert not take(connection, asked).cancel_requested

    def test_one_whose_program_is_gone_is_left(self, connection: Connection) -> None:
        gone, there = (request(ready_program(connection)) for _ in range(2))
        for item in (gone, there):
            fail(connection, item)
        programs.archive(connection, gone.program_id)
        programs.destroy(connection, gone.program_id)
        before = row(connection, gone.id)
        assert replay(connection, gone, there) == 1
        assert row(connection, gone.id) == before
        assert discard(connection, gone) == 1

    def test_of_another_tenant_is_left(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        fail(connection, asked)
        before = row(connection, asked.id)
        assert executions.replay(connection, [asked.id], by="eve", tenant="acme") == 0
        assert executions.discard(connection, [asked.id], by="eve", tenant="acme") == 0
        assert executions.dead(connection, tenant="acme").items == ()
        assert row(connection, asked.id) == before


class TestDiscard:
    def test_it_stays_and_is_no_dead_letter(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        fail(connection, asked)
        before, counted = get(connection, asked.id), sums(connection, asked.program_id)
        assert discard(connection, asked) == 1
        after = get(connection, asked.id)
        assert after.discarded
        assert after == replace(before, discarded=True, updated_at=after.updated_at, timeline=after.timeline)
        assert told(connection, asked.id)[-1] == ("discarded", 1, "ann")
        assert executions.dead(connection).items == ()
        assert sums(connection, asked.program_id) == counted
        assert discard(connection, asked) == 0
        assert get(connection, asked.id) == after

    def test_only_what_failed(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        pending, running, done = (request(program_id) for _ in range(3))
        accept(connection, pending)
        take(connection, running)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        assert discard(connection, pending, running, done) == 0

    def test_named_it_is_replayed_and_may_be_a_dead_letter_again(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        fail(connection, asked)
        discard(connection, asked)
        assert replay(connection, asked) == 1
        assert not get(connection, asked.id).discarded
        fail(connection, asked)
        assert executions.dead(connection).items == (asked.id,)
        assert sums(connection, asked.program_id) == sums_of_rows(connection, asked.program_id)


class TestDead:
    def test_is_what_a_filter_finds(self, connection: Connection) -> None:
        ids = [ready_program(connection) for _ in range(2)]
        asked = [request(ids[number % 2]) for number in range(8)]
        for number, item in enumerate(asked):
            fail(connection, item, error=AUTH if number % 4 < 2 else ERROR)
            insert_at(connection, item.id, number)
        others = [request(ids[0]) for _ in range(2)]
        executions.finish(connection, 0, [completed(others[0], take(connection, others[0]))])
        accept(connection, others[1])
        discard(connection, asked[7])
        dead = asked[6::-1]
        filters: list[tuple[dict[str, Any], list[Request]]] = [
            ({}, dead),
            ({"program_id": ids[0]}, [item for item in dead if item.program_id == ids[0]]),
            ({"error_code": "auth"}, [asked[5], asked[4], asked[1], asked[0]]),
            ({"error_code": "other"}, []),
            ({"since": moment(2), "until": moment(5)}, [asked[4], asked[3], asked[2]]),
            ({"program_id": ids[1], "error_code": "timeout", "since": moment(2)}, [asked[3]]),
        ]
        for given, expected in filters:
            assert walk(connection, given) == [item.id for item in expected], given
            listed = executions.page(connection, status=ExecutionStatus.FAILED, discarded=False, **given)
            assert [item.id for item in listed.items] == [item.id for item in expected]
        assert [item.id for item in executions.page(connection, discarded=True).items] == [asked[7].id]


def moment(number: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)


def insert_at(connection: Connection, execution_id: UUID, number: int) -> None:
    """Have an execution inserted at another time."""
    c = executions_table.c
    connection.execute(update(executions_table).where(c.id == execution_id).values(inserted_at=moment(number)))


def walk(connection: Connection, given: Any) -> list[UUID]:
    cursor, ids = None, list[UUID]()
    while True:
        page = executions.dead(connection, **given, cursor=cursor, limit=3)
        ids += page.items
        cursor = page.next_cursor
        if cursor is None:
            return ids


class TestAtOnce:
    @pytest.fixture
    def asked(self, engine: Engine) -> Sequence[Request]:
        """Failed executions of two programs."""
        with engine.begin() as connection:
            ids = [ready_program(connection) for _ in range(2)]
            asked = [request(ids[number % 2]) for number in range(40)]
            for number, item in enumerate(asked):
                fail(connection, item, shard=number % 3)
        return asked

    def test_many_replay_and_discard_the_same(self, engine: Engine, asked: Sequence[Request]) -> None:
        """In any order: each is replayed once, and no two wait for each other for ever."""
        replayed: list[int] = []

        def work(number: int) -> Callable[[], None]:
            def run() -> None:
                ids = [item.id for item in random.Random(number).sample(list(asked), len(asked))]
                with engine.begin() as connection:
                    if number % 4 == 3:
                        executions.discard(connection, ids, by="ann")
                    else:
                        replayed.append(executions.replay(connection, ids, by="ann", shard=number))

            return run

        at_once([work(number) for number in range(8)])
        assert sorted(replayed) == [0] * 5 + [len(asked)]
        with engine.begin() as connection:
            assert {get(connection, item.id).lock_version for item in asked} == {3}
            for program_id in {item.program_id for item in asked}:
                assert sums(connection, program_id) == (0, 0, 0, 0.0, 0.0)

    def test_while_others_claim_and_finish(self, engine: Engine, asked: Sequence[Request]) -> None:
        """Whoever is first at what: the counters are the rows."""

        def replays(number: int) -> Callable[[], None]:
            def run() -> None:
                for _ in range(5):
                    with engine.begin() as connection:
                        ids = executions.dead(connection, limit=15).items
                    with engine.begin() as connection:
                        executions.replay(connection, ids, by="ann", shard=number)

            return run

        def works(number: int) -> Callable[[], None]:
            def run() -> None:
                chosen = random.Random(number)
                for _ in range(5):
                    items = chosen.sample(list(asked), 15)
                    with engine.begin() as connection:
                        claims = claim_now(connection, ALICE, items)
                    taken = [pair for pair in zip(items, claims, strict=True) if isinstance(pair[1], Claimed)]
                    ends: list[Finish] = []
                    for item, claimed in taken:
                        assert isinstance(claimed, Claimed)
                        end = chosen.choice((completed, failed, failed))(item, claimed)
                        ends.append(replace(end, usage=claimed.usage + end.usage))
                    with engine.begin() as connection:
                        assert all(executions.finish(connection, number, ends))

            return run

        at_once([*(replays(number) for number in range(3)), *(works(number) for number in range(3))])
        with engine.begin() as connection:
            c = executions_table.c
            replayed = connection.execute(select(func.count()).where(c.lock_version > 2)).scalar_one()
            for program_id in {item.program_id for item in asked}:
                assert counted_by_status(connection, program_id) == ended_by_status(connection, program_id)
                assert sums(connection, program_id) == sums_of_rows(connection, program_id)
                histogram = counters.durations(connection, program_id)
                assert min(histogram.values(), default=1) > 0
                assert sum(histogram.values()) == sums_of_rows(connection, program_id)[0]
        assert replayed > 0

    def test_a_program_that_is_being_destroyed_gets_no_pending_execution(
        self, engine: Engine, asked: Sequence[Request]
    ) -> None:
        program_id = asked[0].program_id
        mine = [item.id for item in asked if item.program_id == program_id]

        def revive() -> int:
            with engine.begin() as connection:
                return executions.replay(connection, mine, by="ann")

        with ThreadPoolExecutor(1) as thread:
            with engine.begin() as connection:
                programs.archive(connection, program_id)
                programs.destroy(connection, program_id)
                replayed = thread.submit(revive)
                wait_until(lambda: replayed.done() or waits_for_a_lock(engine), "it waits for the other")
            assert replayed.result() == 0
        with engine.begin() as connection:
            found = connection.execute(select(executions_table.c.status).where(executions_table.c.id.in_(mine)))
            assert set(found.scalars()) == {"failed"}
