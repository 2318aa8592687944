"""Leases: heartbeat, release, rescue."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, update

from dspex import ExecutionOptions, ExecutionStatus, Usage, uuid7
from store import executions
from store.column_types import database_now
from store.executions import Carried, Claimed, Heartbeat, Lease, Request, Retry, Running, ToRunAlone
from store.tables import executions as executions_table
from store.tables import programs as programs_table
from tests.contract.store.rows import (
    ALICE,
    BOB,
    ERROR,
    EXPIRED,
    at_once,
    completed,
    get,
    published,
    ready_program,
    request,
    row,
    take,
    taken,
    told,
)
from tests.waiting import wait_until


def beside(connection: Connection, asked: Request, last: int, lease: Lease = ALICE) -> Claimed:
    return taken(executions.claim(connection, lease, [asked], alone_at=last)[0])


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
        assert executions.heartbeat(connection, Lease("alice", 3600)) == Heartbeat(1, frozenset())
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
        assert executions.heartbeat(connection, ALICE) == Heartbeat(0, frozenset())
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
        assert executions.heartbeat(connection, Lease("alice", 60)).extended == 1
        assert executions.rescue(connection, 60.0, 10) == []
        claimed = take(connection, asked, BOB)
        assert (claimed.attempt, claimed.lock_version) == (2, 3)
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]

    def test_rescue_comes_back_to_what_nobody_takes(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked, Lease("alice", EXPIRED))
        assert executions.rescue(connection, EXPIRED, 10) == [asked]
        assert published(connection, EXPIRED, 10) == [asked]
        assert published(connection, 60.0, 10) == [asked]
        assert published(connection, 60.0, 10) == []
        assert get(connection, asked.id).lock_version == 2
        assert told(connection, asked.id) == [("running", 1, "alice"), ("pending", 1, "relay")]

    def test_what_is_released_is_due_at_once(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        assert not executions.anything_due(connection)
        executions.release(connection, ALICE)
        wait_until(lambda: executions.anything_due(connection), "it is due")
        assert published(connection, 60.0, 10) == [asked]
        assert not executions.anything_due(connection)

    def test_what_an_older_worker_left_is_due_by_its_lease(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        executions.create(connection, asked)
        c = executions_table.c
        changes = {"due_at": None, "lease_expires_at": database_now(EXPIRED)}
        connection.execute(update(executions_table).where(c.id == asked.id).values(changes))
        assert executions.anything_due(connection)
        assert published(connection, 60.0, 10) == [asked]
        assert published(connection, 60.0, 10) == []

    def test_the_lost_attempts_are_counted(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        assert take(connection, asked, Lease("alice", EXPIRED)).lost == 0
        assert take(connection, asked, Lease("bob", EXPIRED)).lost == 1
        executions.rescue(connection, 60.0, 10)
        assert take(connection, asked).lost == 2
        executions.release(connection, ALICE)
        assert take(connection, asked).lost == 2

    def test_the_last_attempt_after_lost_ones_is_to_run_alone(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        for lost in range(2):
            assert beside(connection, asked, 3, Lease("dead", EXPIRED)).lost == lost
        before = row(connection, asked.id)
        # It is abandoned, and pending when it has been rescued.
        assert executions.claim(connection, ALICE, [asked], alone_at=3) == [ToRunAlone(asked.id)]
        assert row(connection, asked.id) == before
        assert executions.rescue(connection, 0.0, 10) == [asked]
        assert executions.claim(connection, ALICE, [asked, asked], alone_at=3) == [ToRunAlone(asked.id)] * 2
        # Alone, it is claimed; and when it has none left, beside others: it is only to be ended.
        assert take(connection, asked, Lease("dead", EXPIRED)).attempt == 3
        assert beside(connection, asked, 3).attempt == 4

    def test_what_lost_no_attempt_or_has_others_left_runs_beside_others(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        failing, once = request(program_id), request(program_id)
        for attempt in (1, 2):
            claimed = beside(connection, failing, 3)
            again = Retry(failing.id, claimed.lock_version, 0.0, attempt, ERROR, Usage(), Carried())
            assert executions.retry(connection, [again]) == [True]
        assert beside(connection, failing, 3).attempt == 3
        assert beside(connection, once, 3, Lease("dead", EXPIRED)).lost == 0
        assert beside(connection, once, 3).lost == 1

    def test_what_is_not_due_waits_however_it_is_to_run(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked, Lease("dead", EXPIRED))
        take(connection, asked, BOB)
        assert executions.claim(connection, ALICE, [asked], alone_at=3) == [Running(asked.id)]

    def test_the_programs_policy_says_which_is_the_last_attempt(self, connection: Connection) -> None:
        ours, theirs = ready_program(connection), ready_program(connection)
        changes = {"policy": {"max_attempts": 2}}
        connection.execute(update(programs_table).where(programs_table.c.id == ours).values(changes))
        asked = [request(ours), request(theirs)]
        for one in asked:
            beside(connection, one, 3, Lease("dead", EXPIRED))
        alone, claimed = executions.claim(connection, ALICE, asked, alone_at=3)
        assert (alone, taken(claimed).attempt) == (ToRunAlone(asked[0].id), 2)

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
                assert executions.heartbeat(other, ALICE).extended == 4
        else:
            with engine.begin() as writer:
                assert executions.heartbeat(writer, ALICE).extended == 5
