"""Many at once: nobody deadlocks, and each execution has one owner."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine

from dspex import ProgramStatus
from store import executions, programs
from store.engine import READ_ONLY, make_engine
from store.executions import Claimed, Lease, Running
from tests.contract.store_rows import ALICE, EXPIRED, at_once, completed, counted, ready_program, request, take


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
