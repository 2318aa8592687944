"""Leases: heartbeat, release, rescue."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, update

from dspex import ExecutionOptions, ExecutionStatus, Usage, uuid7
from store import executions
from store.executions import (
    Carried,
    Claimed,
    Ended,
    Heartbeat,
    Lease,
    NoProgram,
    Request,
    Retry,
    Running,
    ToRunAlone,
    Waiting,
    choosing,
)
from store.queues.turns import Turns
from store.tables import executions as executions_table
from store.tables import programs as programs_table
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
    expire,
    get,
    ready_program,
    request,
    row,
    take,
    taken,
    told,
)


def choice(connection: Connection, lease: Lease = ALICE) -> list[Claimed | ToRunAlone]:
    """What is chosen of all that waits, by a process whose last attempt is the third."""
    return [one.claim for one in choosing.choose(connection, lease, 10, Turns(), alone_at=3).chosen]


def lost(connection: Connection, *asked: Request) -> None:
    """Each is claimed, loses its worker, and waits again."""
    for one in asked:
        take(connection, one, Lease("dead", EXPIRED))
        assert executions.rescue(connection, 10, only=[one.identity]) == [one.identity]


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
        assert executions.rescue(connection, 10) == []
        assert claim_now(connection, BOB, [asked]) == [Running(asked.id)]
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
        assert executions.rescue(connection, 10) == [asked.identity]
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 1, 2)
        assert executions.finish(connection, 0, [completed(asked, zombie)]) == [False]
        assert executions.heartbeat(connection, Lease("alice", 60)).extended == 1
        assert executions.rescue(connection, 10) == []
        claimed = take(connection, asked, BOB)
        assert (claimed.attempt, claimed.lock_version) == (2, 3)
        assert executions.finish(connection, 0, [completed(asked, claimed)]) == [True]

    def test_what_is_rescued_waits_until_somebody_takes_it(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        lost(connection, asked)
        assert not executions.anything_due(connection)
        assert get(connection, asked.id).lock_version == 2
        assert told(connection, asked.id) == [("running", 1, "dead"), ("pending", 1, "relay")]
        assert chosen(connection) == [asked]

    def test_what_is_released_may_run_at_once(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        executions.release(connection, ALICE)
        assert not executions.anything_due(connection)
        assert chosen(connection, BOB) == [asked]
        assert chosen(connection, BOB) == []

    def test_what_is_lost_is_due_for_the_relay(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        take(connection, asked)
        assert not executions.anything_due(connection)
        expire(connection, asked.id)
        assert executions.anything_due(connection)

    def test_the_lost_attempts_are_counted(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        for number in range(2):
            assert take(connection, asked, Lease("dead", EXPIRED)).lost == number
            executions.rescue(connection, 10)
        assert take(connection, asked).lost == 2
        executions.release(connection, ALICE)
        assert take(connection, asked).lost == 2

    def test_the_last_attempt_after_lost_ones_is_to_run_alone(self, connection: Connection) -> None:
        asked = request(ready_program(connection))
        for _ in range(2):
            lost(connection, asked)
        assert choice(connection) == [ToRunAlone(asked.id)]
        kept = get(connection, asked.id)
        assert (kept.status, kept.attempt, kept.lock_version) == (ExecutionStatus.PENDING, 2, 4)
        assert choice(connection) == []  # it is left to who has found it, for a moment
        # Alone, it is claimed; and when it has none left, beside others: it is only to be ended.
        [claimed] = executions.claim_alone(connection, Lease("dead", EXPIRED), [asked])
        assert (taken(claimed).attempt, taken(claimed).lost) == (3, 2)
        assert executions.rescue(connection, 10) == [asked.identity]
        [claimed] = choice(connection)
        assert isinstance(claimed, Claimed)
        assert claimed.attempt == 4

    def test_what_lost_no_attempt_or_has_others_left_runs_beside_others(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        failing, once = request(program_id), request(program_id)
        for attempt in (1, 2):
            claimed = take(connection, failing)
            again = Retry(failing.id, claimed.lock_version, EXPIRED, attempt, ERROR, Usage(), Carried())
            assert executions.retry(connection, [again]) == [True]
        lost(connection, once)
        claims = {claim.id: claim for claim in choice(connection)}
        for asked, attempts in ((failing, (3, 0)), (once, (2, 1))):
            claim = claims[asked.id]
            assert isinstance(claim, Claimed)
            assert (claim.attempt, claim.lost) == attempts

    def test_alone_only_what_waits_is_claimed(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        running, done, later, gone, waits = (request(program_id) for _ in range(5))
        take(connection, running, BOB)
        executions.finish(connection, 0, [completed(done, take(connection, done))])
        claimed = take(connection, later)
        again = Retry(later.id, claimed.lock_version, 60.0, 1, ERROR, Usage(), Carried())
        assert executions.retry(connection, [again]) == [True]
        accept(connection, waits)
        found = executions.claim_alone(connection, ALICE, [running, done, later, gone, waits])
        ended = Ended(get(connection, done.id))
        assert found[:4] == [Running(running.id), ended, Waiting(later.id), NoProgram(gone.id)]
        assert taken(found[4]).attempt == 1

    def test_alone_what_a_program_that_is_gone_has_left_is_claimed(self, connection: Connection) -> None:
        """Else it would be found again for ever."""
        asked = request(ready_program(connection))
        accept(connection, asked)
        connection.execute(delete(programs_table))
        [claimed] = executions.claim_alone(connection, ALICE, [asked])
        assert taken(claimed).backend_id is None

    def test_the_programs_policy_says_which_is_the_last_attempt(self, connection: Connection) -> None:
        ours, theirs = ready_program(connection), ready_program(connection)
        changes = {"policy": {"max_attempts": 2}}
        connection.execute(update(programs_table).where(programs_table.c.id == ours).values(changes))
        asked = [request(ours), request(theirs)]
        lost(connection, *asked)
        claims = {claim.id: claim for claim in choice(connection)}
        assert claims[asked[0].id] == ToRunAlone(asked[0].id)
        claimed = claims[asked[1].id]
        assert isinstance(claimed, Claimed)
        assert claimed.attempt == 2

    def test_rescue_takes_no_more_than_it_may(self, connection: Connection) -> None:
        program_id = ready_program(connection)
        asked = [request(program_id) for _ in range(25)]
        claim_now(connection, Lease("alice", EXPIRED), asked)
        taken_ids = [{item.id for item in executions.rescue(connection, 10)} for _ in range(4)]
        assert [len(ids) for ids in taken_ids] == [10, 10, 5, 0]
        assert set().union(*taken_ids) == {item.id for item in asked}

    def test_two_rescue_at_once(self, engine: Engine) -> None:
        """While the first has not committed, the second passes over what the first has; SQLite lets it wait."""
        with engine.begin() as connection:
            # Each in a queue of its own: whoever offers one holds its row.
            asked = [request(ready_program(connection)) for _ in range(20)]
            claim_now(connection, Lease("alice", EXPIRED), asked)
        found: list[UUID] = []

        def rescue() -> None:
            for _ in range(10):
                with engine.begin() as connection:
                    items = executions.rescue(connection, 3)
                    found.extend(item.id for item in items)

        if engine.dialect.name == "postgresql":
            with engine.begin() as first, engine.begin() as second:
                ids = [{item.id for item in executions.rescue(connection, 7)} for connection in (first, second)]
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
            claims = [taken(claim) for claim in claim_now(connection, ALICE, asked)]
        if engine.dialect.name == "postgresql":
            with engine.begin() as writer, engine.begin() as other:
                executions.finish(writer, 0, [completed(asked[2], claims[2])])
                assert executions.heartbeat(other, ALICE).extended == 4
        else:
            with engine.begin() as writer:
                assert executions.heartbeat(writer, ALICE).extended == 5
