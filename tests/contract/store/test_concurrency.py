"""Many at once: nobody deadlocks, and each execution has one owner."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, select

from dspex import ExecutionStatus, ProgramStatus, Usage
from store import executions, programs
from store.database.engine import READ_ONLY, Plans, make_engine
from store.executions import Carried, Claim, Claimed, Lease, Retry, Running, Waiting
from store.tables import executions as table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    EXPIRED,
    accept,
    at_once,
    chosen,
    claim_now,
    completed,
    counted,
    ready_program,
    request,
    take,
    taken,
    waits_for_a_lock,
)
from tests.waiting import wait_until
from workers.persistence.group_commit import Writer


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
                        claims = claim_now(connection, Lease(f"worker-{number}", 60), mine[start : start + 20])
                    owners.extend(claim.id for claim in claims if isinstance(claim, Claimed))
                    assert all(isinstance(claim, Claimed | Running) for claim in claims)

            return run

        at_once([claim(number) for number in range(8)])
        assert sorted(owners) == sorted(item.id for item in asked)
        with engine.begin() as connection:
            kept = executions.get(connection, [item.id for item in asked])
        assert {(item.attempt, item.lock_version) for item in kept} == {(1, 1)}

    def test_what_is_lost_is_taken_over_once(self, engine: Engine) -> None:
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = [request(program_id) for _ in range(30)]
            claim_now(connection, Lease("dead", EXPIRED), asked)
        owners: list[UUID] = []

        def claim(number: int) -> Callable[[], None]:
            def run() -> None:
                lease = Lease(f"worker-{number}", 60)
                mine = random.Random(number).sample(asked, len(asked))
                with engine.begin() as connection:
                    executions.rescue(connection, 10)
                with engine.begin() as connection:
                    claims = executions.claim_alone(connection, lease, mine)
                owners.extend(claim.id for claim in claims if isinstance(claim, Claimed))
                with engine.begin() as connection:
                    owners.extend(one.id for one in chosen(connection, lease))

            return run

        at_once([claim(number) for number in range(8)])
        claim(9)()  # what was locked when the others looked
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

    def test_a_claim_of_what_is_being_ended_does_not_deadlock(self, engine: Engine) -> None:
        """A writer ends a batch kind by kind, and so in no order; a redelivered message may ask for the same."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = sorted((request(program_id) for _ in range(2)), key=lambda item: item.id)
            low, high = (take(connection, item) for item in asked)

        def claim() -> list[Claim]:
            with engine.begin() as connection:
                return claim_now(connection, BOB, asked)

        with ThreadPoolExecutor(1) as thread:
            with engine.begin() as writer:
                again = Retry(high.id, high.lock_version, 60, 2, ERROR, Usage(), Carried())
                assert executions.retry(writer, [again]) == [True]
                claimed = thread.submit(claim)
                wait_until(lambda: claimed.done() or waits_for_a_lock(engine), "it waits for the writer, if at all")
                assert executions.finish(writer, 0, [completed(asked[0], low)]) == [True]
            assert not any(isinstance(item, Claimed) for item in claimed.result())
        with engine.begin() as connection:
            kept = {item.id: item for item in executions.get(connection, [low.id, high.id])}
            assert counted(connection, program_id) == (1, 0)
        assert [(kept[item.id].status, kept[item.id].lock_version) for item in asked] == [
            (ExecutionStatus.COMPLETED, 2),
            (ExecutionStatus.PENDING, 2),
        ]

    def test_a_claim_passes_over_what_somebody_holds(self, engine: Engine) -> None:
        """What it has taken could be what the other waits for."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            pending, lost, free = (request(program_id) for _ in range(3))
            claim_now(connection, Lease("dead", EXPIRED), [lost])
            accept(connection, pending, free)
        held = select(table.c.id).where(table.c.id.in_([pending.id, lost.id])).with_for_update()
        if engine.dialect.name == "postgresql":
            with engine.begin() as other, engine.begin() as connection:
                assert len(other.execute(held).all()) == 2
                connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
                claims = claim_now(connection, BOB, [pending, lost, free])
                assert [type(claim) for claim in claims] == [Waiting, Running, Waiting]
                assert executions.rescue(connection, 10) == []
                claims = executions.claim_alone(connection, BOB, [pending, lost, free])
                assert [type(claim) for claim in claims] == [Waiting, Running, Claimed]
        with engine.begin() as connection:
            assert executions.rescue(connection, 10) == [lost.identity]
            claims = executions.claim_alone(connection, ALICE, [pending, lost])
            assert [taken(claim).attempt for claim in claims] == [1, 2]

    @pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
    def test_what_deadlocks_is_written_once_all_the_same(self, engine: Engine) -> None:
        """Two workers that both believe to have the same executions, and end them in other orders."""
        with engine.begin() as connection:
            program_id = ready_program(connection)
            asked = [request(program_id) for _ in range(2)]
            ends = [completed(item, take(connection, item)) for item in asked]
        both, tries = threading.Barrier(2), list[int]()

        def end(shard: int) -> Callable[[], None]:
            def write(connection: Connection, _items: Sequence[None]) -> list[list[bool]]:
                tries.append(shard)
                first, second = ends if shard else reversed(ends)
                ended = executions.finish(connection, shard, [first])
                if tries.count(shard) == 1:
                    both.wait()
                return [ended + executions.finish(connection, shard, [second])]

            def run() -> None:
                writer = Writer(engine)
                writer.start()
                assert writer.call(write, None) == [True, True]
                writer.close()

            return run

        at_once([end(0), end(1)])
        assert sorted(tries) in ([0, 0, 1], [0, 1, 1])
        with engine.begin() as connection:
            assert counted(connection, program_id) == (2, 0)
            assert {item.lock_version for item in executions.get(connection, [item.id for item in asked])} == {2}

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

    def test_plans_are_kept_for_a_second(self, postgres_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr("store.database.engine.time.monotonic", lambda: now[0])
        engine, plans = make_engine(postgres_database_url), Plans()
        kept = "SELECT generic_plans FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1 +%%'"
        with engine.begin() as connection:
            said: list[str] = []
            event.listen(connection, "before_cursor_execute", lambda _c, _u, text, *_: said.append(text))
            for moment in (100.0, 100.9, 101.0, 101.9, 102.0):
                now[0] = moment
                plans.renew(connection)
            keep = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
            assert said == [keep, "DISCARD PLANS", "DISCARD PLANS"]
            assert connection.exec_driver_sql("SHOW enable_seqscan").scalar_one() == "off"
            for number in range(8):
                assert connection.exec_driver_sql("SELECT 1 + %(n)s::int", {"n": number}).scalar_one() == 1 + number
            assert connection.exec_driver_sql(kept).scalar_one() > 0
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
