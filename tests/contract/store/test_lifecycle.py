"""Everything that can be done to an execution, in any order, by two actors at once.

What has ended never changes, save where it is replayed or discarded, no transition is illegal, and the counters are the
rows. Two actions that run at the same
time come to what one after the other would have: which of the two orders it was, the database decides.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, Engine, delete, event, select, update

from dspex import ExecutionStatus, Usage, uuid7
from dspex.contract.status import EXECUTION_TRANSITIONS
from dspex.errors import Conflict, IllegalTransition, NotFound
from store import counters, executions
from store.database.engine import make_engine
from store.executions import (
    Carried,
    Claim,
    Claimed,
    Conflicting,
    Ended,
    Finish,
    Heartbeat,
    Lease,
    NoProgram,
    Request,
    Retry,
    Running,
    Waiting,
    choosing,
)
from store.executions.timeline import CANCEL_REQUESTED, DISCARDED, MAX_ENTRIES
from store.queues.turns import Turns
from store.tables import (
    executions as executions_table,
)
from store.tables import (
    metadata,
    queue_moves,
    queues,
)
from store.tables import program_counters as counters_table
from store.tables import program_durations as durations_table
from store.tables import programs as programs_table
from tests.contract.store.rows import (
    ENDS,
    ERROR,
    EXPIRED,
    claim_now,
    counted_by_status,
    expire,
    ready_program,
    request,
)
from tests.sizes import sized

PROGRAM_ID = uuid7()
WORKERS = st.sampled_from("ab")
NUMBERS = st.integers(0, 30)
SHARD = st.integers(0, 3)
NO_STATUS = (CANCEL_REQUESTED, DISCARDED)
EXAMPLES = {"sqlite": sized(55, 150), "postgresql": sized(35, 75)}
STEPS = {"sqlite": sized(1_600, 6_000), "postgresql": sized(1_000, 3_000)}
"""At least."""


@dataclass(frozen=True)
class Item:
    """What an execution should be."""

    request: Request
    status: ExecutionStatus
    lock_version: int
    attempt: int
    worker: str | None = None
    expired: bool = False
    cancel_requested: bool = False
    discarded: bool = False
    told: tuple[str, ...] = ()

    def answer_to(self, request: Request) -> type[Claim]:
        """What a message is told that comes again."""
        if self.request != request:
            return Conflicting
        if self.status.terminal:
            return Ended
        return Running if self.status == ExecutionStatus.RUNNING else Waiting

    def to(self, status: ExecutionStatus, **changes: Any) -> Item:
        return replace(
            self, status=status, lock_version=self.lock_version + 1, expired=False, told=(*self.told, status), **changes
        )


@dataclass
class World:
    """What all executions should be, and every claim that was ever answered."""

    items: dict[UUID, Item] = field(default_factory=dict)
    claims: list[tuple[Request, int]] = field(default_factory=list)

    def copy(self) -> World:
        return World(dict(self.items), list(self.claims))

    def claim(self, item: Item, worker: str) -> tuple[int, int, bool]:
        """A worker claims it; what it is told."""
        item = item.to(ExecutionStatus.RUNNING, attempt=item.attempt + 1, worker=worker)
        self.items[item.request.id] = item
        self.claims.append((item.request, item.lock_version))
        return item.attempt, item.lock_version, item.cancel_requested

    def held_by(self, worker: str) -> list[Item]:
        running = ExecutionStatus.RUNNING
        return [item for item in self.items.values() if item.worker == worker and item.status == running]


def told(claim: Claim) -> Any:
    if isinstance(claim, Claimed):
        return claim.attempt, claim.lock_version, claim.cancel_requested
    return type(claim)


class Action:
    """`do` is what the store answers, `expect` what it should, and changes the world."""

    def do(self, connection: Connection) -> Any:
        raise NotImplementedError

    def expect(self, world: World) -> Any:
        raise NotImplementedError

    def answer(self, connection: Connection) -> Any:
        try:
            return self.do(connection)
        except (Conflict, IllegalTransition, NotFound) as error:
            return type(error)


@dataclass(frozen=True)
class Accept(Action):
    request: Request

    def do(self, connection: Connection) -> Any:
        [answer] = executions.claim(connection, Lease("c", 60), [self.request], now=[False])
        return type(answer)

    def expect(self, world: World) -> Any:
        item = world.items.get(self.request.id)
        if item is None:
            item = Item(self.request, ExecutionStatus.PENDING, 1, 0, told=("pending",))
            world.items[self.request.id] = item
        return item.answer_to(self.request)


@dataclass(frozen=True)
class Claims(Action):
    worker: str
    requests: tuple[Request, ...]

    def do(self, connection: Connection) -> Any:
        return [told(claim) for claim in claim_now(connection, Lease(self.worker, 60), self.requests)]

    def expect(self, world: World) -> Any:
        return [self._one(world, request) for request in self.requests]

    def _one(self, world: World, request: Request) -> Any:
        if item := world.items.get(request.id):
            return item.answer_to(request)
        return world.claim(Item(request, ExecutionStatus.PENDING, 0, 0), self.worker)


@dataclass(frozen=True)
class Finishes(Action):
    shard: int
    ends: tuple[Finish, ...]

    def do(self, connection: Connection) -> Any:
        return executions.finish(connection, self.shard, self.ends)

    def expect(self, world: World) -> Any:
        for end in self.ends:
            item = world.items[end.id]
            if item.status == ExecutionStatus.RUNNING and item.lock_version == end.lock_version:
                world.items[end.id] = item.to(end.status)
        items = [world.items[end.id] for end in self.ends]
        return [
            (end.status, end.lock_version + 1) == (item.status, item.lock_version)
            for end, item in zip(self.ends, items, strict=True)
        ]


@dataclass(frozen=True)
class Cancel(Action):
    id: UUID
    shard: int

    def do(self, connection: Connection) -> Any:
        return executions.cancel(connection, self.id, by="ann", shard=self.shard).status

    def expect(self, world: World) -> Any:
        item = world.items.get(self.id)
        if item is None:
            return NotFound
        if item.status == ExecutionStatus.PENDING:
            item = item.to(ExecutionStatus.CANCELLED, cancel_requested=True)
        elif item.status == ExecutionStatus.RUNNING:
            told = item.told if item.cancel_requested else (*item.told, "cancel_requested")
            item = replace(item, cancel_requested=True, told=told)
        else:
            return IllegalTransition
        world.items[self.id] = item
        return item.status


@dataclass(frozen=True)
class ClaimAlone(Action):
    """Of one that waits, as a choice does, but by its id."""

    request: Request
    worker: str

    def do(self, connection: Connection) -> Any:
        [claim] = executions.claim_alone(connection, Lease(self.worker, 60), [self.request])
        return told(claim)

    def expect(self, world: World) -> Any:
        item = world.items.get(self.request.id)
        if item is None:
            return NoProgram
        if item.status == ExecutionStatus.PENDING:
            return world.claim(item, self.worker)
        return item.answer_to(self.request)


@dataclass(frozen=True)
class Replay(Action):
    ids: tuple[UUID, ...]
    shard: int

    def do(self, connection: Connection) -> Any:
        return executions.replay(connection, self.ids, by="ann", shard=self.shard)

    def expect(self, world: World) -> Any:
        failed = [item for id_ in self.ids if (item := world.items.get(id_)) and item.status == ExecutionStatus.FAILED]
        for item in failed:
            pending = item.to(ExecutionStatus.PENDING, attempt=0, cancel_requested=False, discarded=False)
            world.items[item.request.id] = pending
        return len(failed)


@dataclass(frozen=True)
class Discard(Action):
    ids: tuple[UUID, ...]

    def do(self, connection: Connection) -> Any:
        return executions.discard(connection, self.ids, by="ann")

    def expect(self, world: World) -> Any:
        dead = [item for id_ in self.ids if (item := world.items.get(id_)) and item.status == ExecutionStatus.FAILED]
        dead = [item for item in dead if not item.discarded]
        for item in dead:
            world.items[item.request.id] = replace(item, discarded=True, told=(*item.told, "discarded"))
        return len(dead)


class Lifecycle(RuleBasedStateMachine):
    """Two actors, on connections of their own.

    No rule has a precondition: what has happened depends on who was first, and rules must be there whoever was.
    """

    steps = 0

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor) -> None:
        super().__init__()
        self.engine, self.threads = engine, threads
        self.world = World()
        self.ended: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        with engine.begin() as connection:
            for table in (executions_table, counters_table, durations_table, queues, queue_moves):
                connection.execute(delete(table))

    def request_of(self, number: int) -> Request:
        """One that is known; beyond these a new one, or the id of a known one with other inputs."""
        known = [item.request for item in self.world.items.values()]
        if number < len(known):
            return known[number]
        if known and number % 5 == 0:
            return replace(known[number % len(known)], inputs={"question": "another?"})
        return request(PROGRAM_ID)

    def finish_of(self, number: int, kind: int) -> Finish:
        request, lock_version = self.world.claims[number % len(self.world.claims)]
        return ENDS[kind](request, Claimed(request.id, 1, lock_version, None))

    def action(self, kind: int, number: int, other: int, worker: str) -> Action:
        """What one actor does to one execution."""
        asked = self.request_of(number)
        actions: list[Action] = [
            Accept(asked),
            Claims(worker, (asked,)),
            Cancel(asked.id, other % 4),
            ClaimAlone(asked, worker),
            Replay((asked.id,), other % 4),
            Discard((asked.id,)),
        ]
        if self.world.claims:
            actions.append(Finishes(other % 4, (self.finish_of(number, other % 3),)))
        return actions[kind % len(actions)]

    def run(self, action: Action) -> Any:
        with self.engine.begin() as connection:
            return action.answer(connection)

    @rule(kind=st.integers(0, 6), number=NUMBERS, other=NUMBERS, worker=WORKERS)
    def one(self, kind: int, number: int, other: int, worker: str) -> None:
        action = self.action(kind, number, other, worker)
        answer = self.run(action)
        assert answer == action.expect(self.world)

    @rule(first=st.tuples(st.integers(0, 6), NUMBERS), second=st.integers(0, 6), apart=st.booleans(), other=NUMBERS)
    def two_at_once(self, first: tuple[int, int], second: int, apart: bool, other: int) -> None:
        kind, number = first
        one = self.action(kind, number, other, "a")
        two = self.action(second, other if apart else number, other + 1, "b")
        answers = list(self.threads.map(self.run, (one, two)))
        forth, back = self.world.copy(), self.world.copy()
        expected = one.expect(forth), two.expect(forth)
        backwards = [two.expect(back), one.expect(back)][::-1]
        with self.engine.begin() as connection:
            rows = self.seen(connection)
        orders = [(forth, expected), (back, backwards)]
        for mine, other in ((0, 1), (1, 0)):
            if isinstance((one, two)[mine], ClaimAlone) and answers[mine] is Waiting:
                alone = self.world.copy()  # it has passed over what the other was just changing
                told = {mine: Waiting, other: (one, two)[other].expect(alone)}
                orders.append((alone, (told[0], told[1])))
        for world, both in orders:
            if answers == list(both) and rows == self.wanted(world):
                self.world = world
                return
        raise AssertionError(f"{one} and {two} came to {answers}, which no order of them does")

    @rule(worker=WORKERS, numbers=st.lists(NUMBERS, min_size=2, max_size=5, unique=True))
    def claim_many(self, worker: str, numbers: list[int]) -> None:
        asked = {item.id: item for item in map(self.request_of, numbers)}
        action = Claims(worker, tuple(asked.values()))
        assert self.run(action) == action.expect(self.world)

    @rule(chosen=st.lists(st.tuples(NUMBERS, st.integers(0, 2)), min_size=2, max_size=5), shard=SHARD)
    def finish_many(self, chosen: list[tuple[int, int]], shard: int) -> None:
        claims = len(self.world.claims)
        ends = {number % claims: self.finish_of(number, kind) for number, kind in chosen if claims}
        action = Finishes(shard, tuple(ends.values()))
        assert self.run(action) == action.expect(self.world)

    @rule(numbers=st.lists(NUMBERS, min_size=2, max_size=8), shard=SHARD, discarded=st.booleans())
    def replay_many(self, numbers: list[int], shard: int, discarded: bool) -> None:
        known = list(self.world.items)
        ids = tuple({known[number] for number in numbers if number < len(known)})
        actions: list[Action] = [Discard(ids)] if discarded else []
        for action in (*actions, Replay(ids, shard), Replay(ids, shard)):
            assert self.run(action) == action.expect(self.world)

    @rule(number=NUMBERS, fenced=st.booleans())
    def retry(self, number: int, fenced: bool) -> None:
        claims = list(self.world.claims)
        if not claims:
            return
        asked, version = claims[number % len(claims)]
        item, version = self.world.items[asked.id], version - fenced
        attempt = Retry(asked.id, version, EXPIRED, item.attempt, ERROR, Usage(), Carried())
        waits = item.status == ExecutionStatus.RUNNING and item.lock_version == version
        with self.engine.begin() as connection:
            told = executions.retry(connection, [attempt])
        again = item.status == ExecutionStatus.PENDING and item.lock_version == version + 1
        assert told == [waits or again]
        if waits:
            self.world.items[asked.id] = item.to(ExecutionStatus.PENDING)

    @rule(number=NUMBERS)
    def expire(self, number: int) -> None:
        items = list(self.world.items.values())
        item = items[number] if number < len(items) else None
        if item is not None and item.status == ExecutionStatus.RUNNING:
            with self.engine.begin() as connection:
                expire(connection, item.request.id)
            self.world.items[item.request.id] = replace(item, expired=True)

    @rule(worker=WORKERS)
    def heartbeat(self, worker: str) -> None:
        running = self.world.held_by(worker)
        asked = frozenset(item.request.identity for item in running if item.cancel_requested)
        with self.engine.begin() as connection:
            assert executions.heartbeat(connection, Lease(worker, 60)) == Heartbeat(len(running), asked)
        for item in running:
            self.world.items[item.request.id] = replace(item, expired=False)

    @rule(worker=WORKERS)
    def release(self, worker: str) -> None:
        running = self.world.held_by(worker)
        with self.engine.begin() as connection:
            assert executions.release(connection, Lease(worker, 60)) == len(running)
        for item in running:
            self.world.items[item.request.id] = item.to(ExecutionStatus.PENDING, attempt=item.attempt - 1)

    @rule(worker=WORKERS, places=st.integers(1, 5))
    def choose(self, worker: str, places: int) -> None:
        waiting = {item.request.id for item in self.world.items.values() if item.status == ExecutionStatus.PENDING}
        with self.engine.begin() as connection:
            found = choosing.choose(connection, Lease(worker, 60), places, Turns(), alone_at=99).chosen
        assert len(found) == min(places, len(waiting))
        for one in found:
            item = self.world.items[one.request.id]
            assert item.request.id in waiting
            assert one.request == item.request
            assert isinstance(one.claim, Claimed)
            assert told(one.claim) == self.world.claim(item, worker)

    @rule(limit=st.integers(1, 5))
    def rescue(self, limit: int) -> None:
        items = self.world.items
        lost = {id_ for id_, item in items.items() if item.expired and item.status == ExecutionStatus.RUNNING}
        with self.engine.begin() as connection:
            rescued = executions.rescue(connection, limit)
        assert len(rescued) == min(limit, len(lost))
        for found in rescued:
            assert found.id in lost
            items[found.id] = items[found.id].to(ExecutionStatus.PENDING)

    def wanted(self, world: World) -> dict[UUID, tuple[Any, ...]]:
        return {
            id_: (
                *(item.status, item.lock_version, item.attempt, item.cancel_requested, item.discarded),
                item.told[-MAX_ENTRIES:],
            )
            for id_, item in world.items.items()
        }

    def seen(self, connection: Connection) -> dict[UUID, tuple[Any, ...]]:
        c = executions_table.c
        columns = select(c.id, c.status, c.lock_version, c.attempt, c.cancel_requested, c.discarded, c.timeline)
        return {
            row.id: (*tuple(row)[1:6], tuple(entry["status"] for entry in row.timeline))
            for row in connection.execute(columns)
        }

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        Lifecycle.steps += 1
        with self.engine.begin() as connection:
            assert self.seen(connection) == self.wanted(self.world)
            ended = [id_ for id_, item in self.world.items.items() if item.status.terminal]
            c = executions_table.c
            rows = connection.execute(select(executions_table).where(c.id.in_(ended))).all()
            for found in rows:
                end = found.id, found.lock_version, found.discarded
                assert self.ended.setdefault(end, tuple(found)) == tuple(found)
            counts = Counter(self.world.items[id_].status for id_ in ended)
            assert counted_by_status(connection, PROGRAM_ID) == counts
            ran = counts[ExecutionStatus.COMPLETED] + counts[ExecutionStatus.FAILED]
            assert sum(counters.durations(connection, PROGRAM_ID).values()) == ran
            totals = counters.totals(connection, PROGRAM_ID)
            for name in ("input_tokens", "output_tokens", "cost"):
                assert getattr(totals, name) == sum(getattr(found, name) or 0 for found in rows), name
            assert totals.duration_ms == sum(found.duration_ms for found in rows if found.status != "cancelled")

    @invariant()
    def no_transition_is_illegal(self) -> None:
        for item in self.world.items.values():
            statuses = [ExecutionStatus(status) for status in item.told if status not in NO_STATUS]
            for before, after in pairwise(statuses):
                # A lease that has run out is taken over, and what is pending may be sent again.
                again = before == after and not before.terminal
                replayed = (before, after) == (ExecutionStatus.FAILED, ExecutionStatus.PENDING)
                assert after in EXECUTION_TRANSITIONS[before] or again or replayed


@pytest.mark.timeout(300)
def test_lifecycle(database_url: str) -> None:
    """Commits that need not survive a power cut: there are thousands."""
    fast = "" if database_url.startswith("sqlite") else "?options=-c%20synchronous_commit%3Doff"
    engine = make_engine(database_url + fast, pool_size=5)
    if not fast:
        event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA synchronous = OFF"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        program_id = ready_program(connection)
        connection.execute(update(programs_table).where(programs_table.c.id == program_id).values(id=PROGRAM_ID))
    before = Lifecycle.steps
    with ThreadPoolExecutor(2) as threads:
        run_state_machine_as_test(
            cast("type[Lifecycle]", lambda: Lifecycle(engine, threads)),
            settings=settings(
                max_examples=EXAMPLES[engine.dialect.name],
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    engine.dispose()
    assert Lifecycle.steps - before >= STEPS[engine.dialect.name]
