"""Counters: they lose nothing, and equal the rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, func, select

from dspex import ExecutionStatus, Usage, uuid7
from store import counters, executions
from store.counters import SHARDS, Counts
from store.database.identity import Identity
from store.executions import Finish, Lease
from store.tables import program_counters as counters_table
from tests.contract.store.rows import (
    ENDS,
    ERROR,
    at_once,
    claim_now,
    completed,
    counted,
    counted_by_status,
    ended_by_status,
    get,
    ready_program,
    request,
    take,
    taken,
    waits_for_a_lock,
)
from tests.waiting import wait_until


class TestCounters:
    def test_of_nothing(self, connection: Connection) -> None:
        assert counters.totals(connection, uuid7()) == Counts()
        counters.increment(connection, 0, {})

    def test_add_up_over_shards(self, connection: Connection) -> None:
        program_id, other = uuid7(), uuid7()
        for shard in (0, 1, 1, SHARDS - 1):
            counters.increment(
                connection,
                shard,
                {Identity(program_id): Counts(completed=2, failed=1, cost=0.5), Identity(other): Counts(failed=1)},
            )
        totals = counters.totals(connection, program_id)
        assert (totals.completed, totals.failed, totals.executions, totals.cost) == (8, 4, 12, 2.0)
        assert counted(connection, other) == (0, 4)

    def test_larger_than_32_bits(self, connection: Connection) -> None:
        program_id = uuid7()
        for _ in range(2):
            counters.increment(connection, 0, {Identity(program_id): Counts(input_tokens=2**40, output_tokens=2**33)})
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
                    batch = {
                        Identity(program_id): Counts(completed=1, failed=2) for program_id in chosen.sample(ids, 6)
                    }
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
                        claims = [taken(claim) for claim in claim_now(connection, lease, asked)]
                    ends = [chosen.choice(ENDS)(item, claim) for item, claim in zip(asked, claims, strict=True)]
                    with engine.begin() as connection:
                        assert all(executions.finish(connection, number % 2, ends))

            return run

        at_once([work(number) for number in range(8)])
        with engine.begin() as connection:
            total = 0
            for program_id in ids:
                ended = ended_by_status(connection, program_id)
                assert counted_by_status(connection, program_id) == ended
                total += sum(ended.values())
                ran = ended[ExecutionStatus.COMPLETED] + ended[ExecutionStatus.FAILED]
                assert sum(counters.durations(connection, program_id).values()) == ran
        assert total == 8 * 4 * 10

    def test_an_end_counts_all_that_it_is(self, connection: Connection) -> None:
        """The sums of a batch, of what each end says: also of what is not known of some."""
        one, other = ready_program(connection), ready_program(connection)
        asked = [request(one), request(one), request(one), request(one), request(other)]
        claims = [take(connection, item) for item in asked]
        ends = [end(item, claim) for end, item, claim in zip((*ENDS, completed), asked[1:], claims[1:], strict=True)]
        unknown = Usage(calls=1, input_tokens=None, output_tokens=None, cost=None)
        unrun = Finish(asked[0].id, one, 1, None, unknown, error=ERROR)
        assert executions.finish(connection, 5, [unrun, *ends]) == [True] * 5
        totals = counters.totals(connection, one)
        assert (totals.completed, totals.failed, totals.cancelled, totals.duration_ms) == (1, 2, 1, 20.0)
        assert (totals.input_tokens, totals.output_tokens, totals.cost) == (14, 2, 0.25)
        assert (totals.tokens_known, totals.cost_known) == (2, 2)
        assert counters.durations(connection, one) == {15: 1, 12: 1}
        assert counted_by_status(connection, other) == {ExecutionStatus.COMPLETED: 1}

    def test_an_end_is_counted_beside_another_of_its_shard(self, engine: Engine) -> None:
        """It reads the version of the counters, waits for who has changed them, and counts all the same, once."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = request(program_id)
            claimed = take(connection, asked)
            executions.finish(connection, 0, [completed(other := request(program_id), take(connection, other))])

        def end() -> list[bool]:
            with engine.begin() as connection:
                return executions.finish(connection, 0, [completed(asked, claimed)])

        with ThreadPoolExecutor(1) as threads, engine.begin() as connection:
            counters.increment(connection, 0, {Identity(program_id): Counts(failed=1, durations={7: 1})})
            ended = threads.submit(end)
            wait_until(lambda: ended.done() or waits_for_a_lock(engine), "it waits")
            assert not ended.done()
            connection.commit()
            assert ended.result() == [True]
        with engine.begin() as connection:
            assert counted(connection, program_id) == (2, 1)
            assert counters.durations(connection, program_id) == {15: 2, 7: 1}

    def test_what_was_cancelled_before_it_ran_was_not_executed(self, connection: Connection) -> None:
        program_id = uuid7()
        counters.increment(connection, 0, {Identity(program_id): Counts(cancelled=1)}, executed=False)
        assert counters.totals(connection, program_id) == Counts(cancelled=1)
        counters.increment(connection, 0, {Identity(program_id): Counts(completed=1)})
        last = counters.totals(connection, program_id).last_executed_at
        assert last is not None
        counters.increment(connection, 0, {Identity(program_id): Counts(cancelled=1)}, executed=False)
        assert counters.totals(connection, program_id) == Counts(completed=1, cancelled=2, last_executed_at=last)

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
