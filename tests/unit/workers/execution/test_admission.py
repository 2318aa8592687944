"""Each message of an execution becomes a row and is acked: running where there is a free place, else it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, func, select

from deploy.processes import wait_until
from dspex import ExecuteProgram, ExecutionOptions, ExecutionStatus, uuid7, wrap
from dspex.contract.callback import Callback
from dspex.contract.options import Lane
from store import executions
from store.database.identity import Identity
from store.executions import Claimed, Conflicting, Ended, Lease, ToRunAlone, Waiting
from store.gates import KnownGates
from store.tables import executions as executions_table
from tests.unit.system import PATIENCE, System
from workers.application.own import Own
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.encoding import Content, Origin, read
from workers.brokers.work_queue import EXECUTIONS, QUICK
from workers.execution import places
from workers.execution.admission import STALE_SECONDS, Intake
from workers.execution.attempt import Attempt
from workers.execution.taken import Refused, Taken, ToRun
from workers.persistence.group_commit import WriterClosed

RUNNING, PENDING = ExecutionStatus.RUNNING, ExecutionStatus.PENDING


@dataclass
class Source:
    """Where deliveries come from, and how they were settled."""

    settled: dict[int, Disposition] = field(default_factory=dict)

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        self.settled[delivery.tag] = disposition


@dataclass
class Item:
    """What a consumer puts in."""

    message: Delivery
    priority: int = QUICK

    @property
    def id(self) -> UUID:
        return UUID(self.message.kwargs["envelope"].subject)


class Desk:
    """An intake of two places, and no thread that takes anything out."""

    def __init__(self, start: Callable[..., System], threads: int = 2) -> None:
        first = start()
        self.program_id = first.program()
        first.stop()
        self.system = start(running=False, threads=threads)
        self.app = self.system.app
        self.intake = Intake(self.app)
        self.source = Source()
        self._tags = iter(range(1, 1_000))

    def put(self, execution_id: UUID | None = None, source: Source | None = None, **details: Any) -> Item:
        given: dict[str, Any] = {"program_id": self.program_id, "inputs": {"question": "why"}} | details
        command = ExecuteProgram(execution_id=execution_id or uuid7(), **given)
        body = wrap(command, source="/tests").encode()
        message = Delivery(read(Content(body), Origin("dspex.executions")), source or self.source, next(self._tags))
        item = Item(message)
        self.intake.put(item)
        return item

    def queued(self, count: int) -> list[Any]:
        """So many items, out of the queue."""
        assert wait_until(lambda: len(self.intake) == count, PATIENCE), len(self.intake)
        return [self.intake.get_nowait() for _ in range(count)]

    def to_run(self, count: int) -> list[ToRun]:
        items = self.queued(count)
        assert all(isinstance(item, ToRun) for item in items)
        return items

    def status(self, item: Item | UUID) -> ExecutionStatus | None:
        row = self.system.row(item if isinstance(item, UUID) else item.id)
        return None if row is None else row.status

    def counted(self) -> dict[str, float | None]:
        """How many were accepted, by state, and chosen; and how many messages came again."""
        read = self.app.metrics.registry.get_sample_value
        states = {state: read("dspex_executions_accepted_total", {"state": state}) for state in ("running", "pending")}
        return states | {
            "chosen": read("dspex_executions_chosen_total"),
            "again": read("dspex_redeliveries_total"),
        }

    def becomes(self, item: Item, status: ExecutionStatus) -> None:
        assert wait_until(lambda: self.status(item) == status, PATIENCE), self.status(item)


@pytest.fixture
def desk(start: Callable[..., System]) -> Iterator[Desk]:
    desk = Desk(start)
    yield desk
    desk.system._stopped = True  # its threads were never started
    desk.app.close()


@pytest.fixture
def wide(start: Callable[..., System]) -> Iterator[Desk]:
    desk = Desk(start, threads=8)
    yield desk
    desk.system._stopped = True  # its threads were never started
    desk.app.close()


def id_of(item: ToRun) -> UUID:
    assert item.taken.attempt is not None
    return item.taken.attempt.claimed.id


def test_as_many_are_claimed_as_there_are_places_and_the_others_wait_as_rows(desk: Desk) -> None:
    items = [desk.put() for _ in range(2)]
    first, second = desk.to_run(2)
    assert [id_of(first), id_of(second)] == [item.id for item in items]
    for _ in range(2):
        items.append(desk.put())
        desk.becomes(items[-1], PENDING)
    assert [desk.status(item) for item in items] == [RUNNING] * 2 + [PENDING] * 2
    assert wait_until(lambda: desk.source.settled == dict.fromkeys(range(1, 5), Disposition.ACK), PATIENCE)
    assert desk.app.in_flight.executions == {Identity(item.id) for item in items[:2]}

    first.place.leave()
    [third] = desk.to_run(1)
    assert id_of(third) == items[2].id
    assert desk.status(items[3]) == PENDING
    second.place.leave()
    assert [id_of(item) for item in desk.to_run(1)] == [items[3].id]
    assert desk.counted() == {"running": 2, "pending": 2, "chosen": 2, "again": 0}


def test_behind_short_runs_a_message_is_held_for_the_next_place(desk: Desk) -> None:
    """To write it down as waiting would cost more than to wait."""
    desk.app.pace.ended(0.2)
    items = [desk.put() for _ in range(4)]
    first, _ = desk.to_run(2)
    assert [desk.status(item) for item in items[2:]] == [None, None]
    first.place.leave()
    [third] = desk.to_run(1)
    assert id_of(third) == items[2].id
    assert desk.status(items[3]) is None
    desk.intake.close()
    assert desk.status(items[3]) is None
    assert set(desk.source.settled) == {1, 2, 3}


@pytest.mark.parametrize("why", ["for too long", "runs are long", "others wait"])
def test_what_is_held_is_written_down(desk: Desk, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.app.pace.ended(0.2)
    items = [desk.put() for _ in range(4)]
    desk.to_run(2)
    if why == "for too long":
        monkeypatch.setattr(places, "HOLD_SECONDS", 0.0)
    elif why == "runs are long":
        desk.app.pace.at_least(5.0)
    else:
        desk.intake.places._waits = True
    desk.intake.places._let_go()
    for item in items[2:]:
        desk.becomes(item, PENDING)
    assert wait_until(lambda: set(desk.source.settled) == {1, 2, 3, 4}, PATIENCE)


def test_while_some_wait_a_new_one_does_not_overtake_them(desk: Desk) -> None:
    items = [desk.put() for _ in range(3)]
    [first, _] = desk.to_run(2)
    desk.becomes(items[2], PENDING)
    desk.intake.places._waits = True
    desk.app.claimer.call(desk.app.writes.each, lambda _: None)
    new = desk.put()
    desk.becomes(new, PENDING)
    first.place.leave()
    assert [id_of(item) for item in desk.to_run(1)] == [items[2].id]
    assert desk.status(new) == PENDING


def test_an_urgent_one_is_before_what_is_claimed_ahead(desk: Desk) -> None:
    desk.app.pace.ended(0.001)
    bulk = [desk.put(options=ExecutionOptions(lane=Lane.BULK)) for _ in range(4)]
    assert wait_until(lambda: len(desk.intake) == 4, PATIENCE)
    urgent = desk.put(options=ExecutionOptions(lane=Lane.HIGH))
    assert [id_of(item) for item in desk.to_run(5)] == [item.id for item in (urgent, *bulk)]


def test_an_urgent_one_has_a_place_where_others_wait(wide: Desk) -> None:
    """One for every eight threads: behind a backlog it need not wait for the end of another."""
    bulk = [wide.put(options=ExecutionOptions(lane=Lane.BULK)) for _ in range(10)]
    running = wide.to_run(8)
    for item in bulk[8:]:
        wide.becomes(item, PENDING)
    first, second = (wide.put(options=ExecutionOptions(lane=Lane.HIGH)) for _ in range(2))
    [urgent] = wide.to_run(1)
    assert id_of(urgent) == first.id
    wide.becomes(second, PENDING)
    urgent.place.leave()
    assert wide.status(second) == PENDING, "the next place is its own, by its lane"
    running[0].place.leave()
    assert [id_of(item) for item in wide.to_run(1)] == [second.id]
    [third] = [wide.put(options=ExecutionOptions(lane=Lane.HIGH))]
    assert [id_of(item) for item in wide.to_run(1)] == [third.id]
    assert not wide.intake.wait(0)


def test_a_message_for_one_that_runs_or_waits_is_dropped(desk: Desk) -> None:
    running, other, waiting = (desk.put() for _ in range(3))
    desk.to_run(2)
    desk.becomes(waiting, PENDING)
    for item in (running, other, waiting):
        desk.put(item.id)
    assert wait_until(lambda: len(desk.source.settled) == 6, PATIENCE)
    assert set(desk.source.settled.values()) == {Disposition.ACK}
    assert len(desk.intake) == 0
    assert [desk.status(item) for item in (running, other, waiting)] == [RUNNING, RUNNING, PENDING]
    assert wait_until(lambda: desk.counted()["again"] == 3, PATIENCE)
    assert desk.counted() == {"running": 2, "pending": 1, "chosen": 0, "again": 3}


def test_a_message_for_one_that_has_ended_is_its_handlers_to_answer(desk: Desk) -> None:
    first = desk.put()
    [claimed] = desk.to_run(1)
    assert claimed.taken.attempt is not None
    with desk.app.engine.begin() as connection:
        executions.cancel(connection, first.id, by="tests", shard=0)
    finish: Any = claimed.taken.attempt.cancelled(claimed.taken.attempt.claimed.usage)
    assert desk.app.writer.call(desk.app.writes.finish, finish).held
    ended = desk.put(first.id)
    assert desk.queued(1) == [ended]
    assert isinstance(ended.message.held, Refused)
    assert isinstance(ended.message.held.claim, Ended)
    assert desk.source.settled == {1: Disposition.ACK}


def test_what_is_left_to_its_handler_waits_for_no_thread_that_runs(desk: Desk) -> None:
    """Its actor is quick, and there are threads for such."""
    for _ in range(2):
        desk.put()
    first = desk.to_run(2)[0]
    conflict = desk.put(id_of(first), inputs={"question": "another"})
    assert wait_until(lambda: len(desk.intake) == 1, PATIENCE)
    assert desk.intake.get(timeout=PATIENCE) is conflict
    assert conflict.priority < EXECUTIONS
    assert isinstance(conflict.message.held, Refused)
    assert conflict.message.held.claim == Conflicting(id_of(first))


def test_what_a_source_that_is_gone_brought_is_there(desk: Desk) -> None:
    """What it left to a handler comes again, and is dropped."""
    gone, there = Source(), Source()
    desk.put(source=gone)
    desk.put(source=there)
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    bad = Callback(url="https://169.254.169.254/latest", secret="A_WEBHOOK_SECRET")
    dropped, kept = (desk.put(source=source, callback=bad) for source in (gone, there))
    desk.intake.forget(gone)
    assert len(desk.intake) == 3
    found = desk.queued(3)
    assert kept in found
    assert dropped not in found


def test_while_one_runs_alone_nothing_is_claimed(desk: Desk) -> None:
    with desk.app.isolation.alone(Identity(uuid7())):
        item = desk.put()
        desk.becomes(item, PENDING)
        assert len(desk.intake) == 0
        assert not desk.intake.places._taken
    assert [id_of(one) for one in desk.to_run(1)] == [item.id]


def test_one_that_is_to_run_alone_waits_for_what_is_claimed(desk: Desk) -> None:
    desk.put()
    [item] = desk.to_run(1)
    with desk.app.isolation._changed:
        assert desk.app.isolation._inside == 1
    item.place.leave()
    with desk.app.isolation.alone(Identity(uuid7())) as waited:
        assert waited


def test_one_that_is_to_run_alone_is_not_claimed_beside_others(desk: Desk) -> None:
    """Else it would lose its last attempt where another ends the process."""
    first = desk.put()
    [item] = desk.to_run(1)
    dead = Lease("dead", -1.0)
    with desk.app.engine.begin() as connection:
        assert executions.heartbeat(connection, replace(desk.app.writes.lease, seconds=-1.0)).extended == 1
        assert len(executions.rescue(connection, 10)) == 1
        assert isinstance(executions.claim_alone(connection, dead, [item.taken.request])[0], Claimed)
        assert len(executions.rescue(connection, 10)) == 1
    item.place.leave()
    desk.intake.places.look()
    [again] = desk.to_run(1)
    assert again.taken.attempt is None
    assert again.taken.claim == ToRunAlone(first.id)
    assert desk.status(first) == PENDING
    again.place.leave()
    assert desk.intake.wait(0)
    # It waits here: a process that leaves others alone runs it.
    app = replace(desk.app, own=Own("worker"))
    Taken(app, again.taken.request, again.taken.claim)
    assert app.own is not None
    assert app.own.identities == [Identity(first.id)]


def test_a_process_that_leaves_others_alone_takes_what_comes_to_it(desk: Desk) -> None:
    """Another process has accepted it, and has left."""
    execution_id = uuid7()
    with desk.app.engine.begin() as connection:
        asked = desk.system.request(desk.program_id, execution_id, question="why")
        assert executions.claim(connection, Lease("gone", 60.0), [asked], now=[False]) == [Waiting(execution_id)]
    intake = Intake(replace(desk.app, own=Own("mine"), writes=replace(desk.app.writes, only_own=True)))
    intake.places.look()
    assert desk.app.claimer.call(desk.app.writes.each, lambda _: None) is None
    assert len(intake) == 0
    desk.intake = intake
    desk.put(execution_id)

    def chosen() -> bool:
        intake.look_around()
        return len(intake) == 1

    assert wait_until(chosen, PATIENCE)
    [item] = desk.to_run(1)
    assert id_of(item) == execution_id


def test_a_callback_that_cannot_be_is_its_handlers_to_refuse(desk: Desk) -> None:
    item = desk.put(callback=Callback(url="https://169.254.169.254/latest", secret="A_WEBHOOK_SECRET"))
    assert desk.queued(1) == [item]
    assert item.message.held is None
    assert desk.status(item) is None


def test_what_the_policy_denies_is_its_handlers_to_refuse(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tells, and nothing is told here: the audit has one line."""
    monkeypatch.setattr("workers.security.authorization.ROLES", {})
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.message.held is None
    assert desk.status(item) is None
    assert "denied" not in caplog.text


def test_a_claim_that_fails_is_its_handlers_to_tell(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection, *_: Any, **__: Any) -> Sequence[Any]:
        raise ValueError("poison")

    monkeypatch.setattr(executions, "claim", fail)
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.message.held is None
    assert desk.source.settled == {}
    assert desk.intake.wait(0)


def test_what_holds_slots_of_a_limit_is_not_claimed_ahead(
    start: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold a slot, and not run."""
    system = start(running=False, threads=8)
    places = Intake(system.app).places
    system.app.pace.ended(0.01)
    assert places.capacity == 16
    monkeypatch.setattr(KnownGates, "limits_work", True)
    assert places.capacity == 8
    system._stopped = True  # its threads were never started
    system.app.close()


def test_a_writer_that_is_closed(desk: Desk) -> None:
    desk.app.claimer.close()
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.message.held is None
    desk.intake.places.look()
    assert desk.intake.wait(0)
    with pytest.raises(WriterClosed):
        desk.app.claimer.call(desk.app.writes.hand_over, Identity(uuid7()))


@pytest.mark.parametrize(
    ("threads", "seconds", "capacity"),
    [(1, 0.1, 1), (7, 0.1, 7), (8, 0.1, 9), (20, 0.1, 22), (8, 0.01, 16), (8, 0.001, 24), (1, 0.001, 3)],
)
def test_while_runs_are_short_some_are_claimed_ahead(
    start: Callable[..., System], threads: int, seconds: float, capacity: int
) -> None:
    """One for every eight threads; of very short ones what runs in ten milliseconds, at most two for each thread."""
    system = start(running=False, threads=threads)
    intake = Intake(system.app)
    assert (intake.places.capacity, intake.threads) == (threads, threads + threads // 8 + 8)
    system.app.pace.ended(seconds)
    assert intake.places.capacity == capacity
    system.app.pace.at_least(5.0)
    assert intake.places.capacity == threads
    system._stopped = True  # its threads were never started
    system.app.close()


def _begun_and_not(desk: Desk) -> tuple[ToRun, UUID]:
    """A claimed execution that a thread has begun, and the id of one that none has."""
    begun, unbegun = desk.put(), desk.put()
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    taken: Any = desk.intake.get_nowait()
    assert id_of(taken) == begun.id
    return taken, unbegun.id


def _given_back(desk: Desk, execution_id: UUID) -> bool:
    row = desk.system.row(execution_id)
    return row is not None and (row.status, row.attempt) == (PENDING, 0)


def test_closed_it_gives_back_what_is_claimed_and_not_begun(desk: Desk) -> None:
    begun, unbegun = _begun_and_not(desk)
    desk.intake.close()
    assert len(desk.intake) == 0
    assert desk.app.in_flight.executions == {Identity(id_of(begun))}
    assert wait_until(lambda: _given_back(desk, unbegun), PATIENCE)
    assert not desk.intake.wait(0)
    begun.place.leave()
    assert desk.intake.wait(PATIENCE)


def test_what_waits_too_long_behind_others_is_given_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have time: a thread of this one is busy for long."""
    begun, unbegun = _begun_and_not(desk)
    desk.app.pace.ended(0.01)
    desk.intake.look_around()
    assert desk.status(unbegun) == RUNNING
    desk.intake.places._closed = True  # else it is chosen here again, as a place is free
    monkeypatch.setattr(Attempt, "age", STALE_SECONDS + 1)
    desk.intake.look_around()
    assert wait_until(lambda: _given_back(desk, unbegun), PATIENCE)
    assert not desk.app.pace.short
    begun.place.leave()
    assert desk.intake.wait(PATIENCE)


def test_one_that_is_to_run_alone_has_given_back_what_is_not_begun(desk: Desk) -> None:
    """Where every thread waits, nobody would ever run it."""
    begun, unbegun = _begun_and_not(desk)
    alone = threading.Event()

    def run_alone() -> None:
        with desk.app.isolation.alone(Identity(uuid7())):
            alone.set()

    thread = threading.Thread(target=run_alone)
    thread.start()
    assert wait_until(lambda: _given_back(desk, unbegun), PATIENCE)
    assert not alone.is_set()
    begun.place.leave()
    thread.join(PATIENCE)
    assert alone.is_set()
    assert [id_of(item) for item in desk.to_run(1)] == [unbegun]


@pytest.mark.parametrize("closing", [True, False])
def test_what_is_claimed_when_nothing_may_begin_is_given_back(
    desk: Desk, closing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, claiming, go_on = executions.claim, threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        claiming.set()
        assert go_on.wait(PATIENCE)
        return claim(*arguments, **options)

    monkeypatch.setattr(executions, "claim", slow)
    item = desk.put()
    assert claiming.wait(PATIENCE)
    thread = threading.Thread(target=desk.intake.close if closing else _run_alone, args=() if closing else (desk,))
    thread.start()
    if closing:
        thread.join(PATIENCE)
    else:
        assert wait_until(lambda: desk.app.isolation.wanted, PATIENCE)
        desk.intake.places._closed = True  # else it is chosen when the other has run
    go_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert wait_until(lambda: _given_back(desk, item.id), PATIENCE)
    assert len(desk.intake) == 0
    assert desk.intake.wait(PATIENCE)


def _run_alone(desk: Desk) -> None:
    with desk.app.isolation.alone(Identity(uuid7())):
        pass


def test_closed_it_accepts_nothing_and_waits_for_what_is_claimed(desk: Desk) -> None:
    items = [desk.put() for _ in range(3)]
    taken = desk.to_run(2)
    desk.becomes(items[2], PENDING)
    desk.intake.close()
    late = desk.put()
    assert not desk.intake.wait(0.01)
    for item in taken:
        item.place.leave()
    assert desk.intake.wait(PATIENCE)
    assert len(desk.intake) == 0
    assert [desk.status(item) for item in (items[2], late)] == [PENDING, None]
    assert set(desk.source.settled) == {1, 2, 3}


def test_what_is_cancelled_before_a_thread_has_it_ends_without_one(desk: Desk) -> None:
    """Where every thread is busy for long, none would take it soon."""
    first, cancelled, waiting = desk.put(), desk.put(), desk.put()
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    desk.becomes(waiting, PENDING)
    with desk.app.engine.begin() as connection:
        executions.cancel(connection, cancelled.id, by="tests")
    desk.app.in_flight.cancel({Identity(cancelled.id)})
    desk.becomes(cancelled, ExecutionStatus.CANCELLED)
    assert [id_of(item) for item in desk.to_run(2)] == [first.id, waiting.id]
    assert desk.app.in_flight.executions == {Identity(first.id), Identity(waiting.id)}


def test_a_choice_that_fails_is_made_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [desk.put() for _ in range(3)]
    first, _ = desk.to_run(2)
    desk.becomes(items[2], PENDING)
    with monkeypatch.context() as broken:

        def fail(*_: Any, **__: Any) -> Any:
            raise ValueError("poison")

        broken.setattr("workers.persistence.operations.choose", fail)
        first.place.leave()
        desk.app.claimer.call(desk.app.writes.each, lambda _: None)
    assert len(desk.intake) == 0
    desk.intake.look_around()
    assert [id_of(item) for item in desk.to_run(1)] == [items[2].id]


def test_memory_stays_flat_however_many_come(desk: Desk) -> None:
    items = [desk.put() for _ in range(300)]
    assert wait_until(lambda: len(desk.source.settled) == 300, PATIENCE)
    assert len(desk.intake) == 2
    with desk.app.engine.connect() as connection:
        c = executions_table.c
        counted: dict[str, int] = dict(connection.execute(select(c.status, func.count()).group_by(c.status)).all())
    assert counted == {"running": 2, "pending": 298}
    assert desk.status(items[-1]) == PENDING
