"""Executions are claimed before a thread has them: as many as there are slots, none past what stands in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from deploy.processes import wait_until
from dspex import ExecuteProgram, ExecutionStatus, uuid7, wrap
from dspex.contract.callback import Callback
from store import executions
from store.database.identity import Identity
from store.executions import Claimed, Ended, Lease, Running, ToRunAlone
from tests.unit.system import PATIENCE, System
from workers.application.own import Own
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.encoding import Content, Origin, read
from workers.execution.admission import Intake, Slot, slot_of
from workers.execution.taken import Taken
from workers.persistence.group_commit import WriterClosed


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
    priority: int = 10

    @property
    def slot(self) -> Slot:
        found = slot_of(self.message)
        assert found is not None
        return found

    @property
    def claim(self) -> Any:
        return self.slot.taken and self.slot.taken.claim


class Desk:
    """An intake of two slots, and no thread that takes anything out."""

    def __init__(self, start: Callable[..., System]) -> None:
        first = start()
        self.program_id = first.program()
        first.stop()
        self.system = start(running=False, threads=2)
        self.app = self.system.app
        self.intake = Intake(self.app)
        self.source = Source()
        self._tags = iter(range(1, 1_000))

    def put(self, execution_id: UUID | None = None, source: Source | None = None, **details: Any) -> Item:
        command = ExecuteProgram(
            execution_id=execution_id or uuid7(), program_id=self.program_id, inputs={"question": "why"}, **details
        )
        body = wrap(command, source="/tests").encode()
        message = Delivery(read(Content(body), Origin("dspex.executions")), source or self.source, next(self._tags))
        item = Item(message)
        self.intake.put(item)
        return item

    def queued(self, count: int) -> list[Any]:
        """So many items, out of the queue."""
        assert wait_until(lambda: len(self.intake) == count, PATIENCE), len(self.intake)
        return [self.intake.get_nowait() for _ in range(count)]

    def status(self, item: Item) -> ExecutionStatus | None:
        row = self.system.row(UUID(item.message.kwargs["envelope"].subject))
        return None if row is None else row.status


@pytest.fixture
def desk(start: Callable[..., System]) -> Iterator[Desk]:
    desk = Desk(start)
    yield desk
    desk.system._stopped = True  # its threads were never started
    desk.app.close()


def test_as_many_are_claimed_as_there_are_slots(desk: Desk) -> None:
    items = [desk.put() for _ in range(4)]
    taken = desk.queued(2)
    assert taken == items[:2]
    assert [desk.status(item) for item in items] == [ExecutionStatus.RUNNING] * 2 + [None] * 2
    assert all(isinstance(item.claim, Claimed) for item in taken)
    assert desk.source.settled == {1: Disposition.ACK, 2: Disposition.ACK}
    assert desk.app.in_flight.executions == {Identity(item.claim.id) for item in taken}

    taken[0].slot.leave()
    assert desk.queued(1) == [items[2]]
    assert desk.status(items[3]) is None


def test_what_runs_or_has_ended_is_told_and_is_not_acked_before_its_handler_has_looked(desk: Desk) -> None:
    first = desk.put()
    [claimed] = desk.queued(1)
    again = desk.put(claimed.claim.id)
    assert desk.queued(1) == [again]
    assert isinstance(again.claim, Running)
    first.slot.leave()
    with desk.app.engine.begin() as connection:
        executions.cancel(connection, claimed.claim.id, by="tests", shard=0)
    finish = claimed.slot.taken.attempt.cancelled(claimed.claim.usage)
    assert desk.app.writer.call(desk.app.writes.finish, finish).held
    ended = desk.put(claimed.claim.id)
    assert desk.queued(1) == [ended]
    assert isinstance(ended.claim, Ended)
    assert desk.source.settled == {1: Disposition.ACK}


@pytest.mark.parametrize("closed", [True, False])
def test_what_a_source_that_is_gone_left_unclaimed_comes_again(desk: Desk, closed: bool) -> None:
    """What is claimed stays, and so does what came from elsewhere."""
    gone, there = Source(), Source()
    claimed = [desk.put(source=gone), desk.put(source=there)]
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    desk.put(source=gone)
    other = desk.put(source=there)
    desk.intake.forget(gone)
    assert desk.queued(2) == claimed
    if closed:
        desk.intake.close()
    for item in claimed:
        item.slot.leave()
    if closed:
        assert desk.intake.wait(0)
        assert desk.status(other) is None
    else:
        assert desk.queued(1) == [other]


def test_a_place_that_was_held_by_what_is_dropped_is_free(desk: Desk) -> None:
    """Left to their handlers, they hold slots too."""
    gone = Source()
    with desk.app.isolation.alone(Identity(uuid7())):
        for _ in range(2):
            desk.put(source=gone)
        waiting = desk.put()
        assert len(desk.intake) == 2
        desk.intake.forget(gone)
        assert desk.queued(1) == [waiting]
        assert waiting.slot.taken is None
        waiting.slot.leave()
        assert desk.intake.wait(0)


def test_while_one_runs_alone_nothing_is_claimed(desk: Desk) -> None:
    with desk.app.isolation.alone(Identity(uuid7())):
        item = desk.put()
        assert desk.queued(1) == [item]
        assert item.claim is None
    item.slot.leave()
    assert isinstance(_claimed(desk).claim, Claimed)


def test_one_that_is_to_run_alone_waits_for_what_is_claimed(desk: Desk) -> None:
    item = _claimed(desk)
    with desk.app.isolation._changed:
        assert desk.app.isolation._inside == 1
    item.slot.step_aside()
    item.slot.leave()
    with desk.app.isolation.alone(Identity(uuid7())) as waited:
        assert waited


def test_one_that_is_to_run_alone_is_not_claimed_beside_others(desk: Desk) -> None:
    """Else it would lose its last attempt where another ends the process; so it is not acked either."""
    item = _claimed(desk)
    assert item.slot.taken is not None
    dead = Lease("dead", -1.0)
    with desk.app.engine.begin() as connection:
        assert executions.heartbeat(connection, replace(desk.app.writes.lease, seconds=-1.0)).extended == 1
        assert isinstance(executions.claim(connection, dead, [item.slot.taken.request])[0], Claimed)
        assert len(executions.rescue(connection, 0.0, 10)) == 1
    item.slot.leave()
    again = desk.put(item.claim.id)
    assert desk.queued(1) == [again]
    assert again.claim == ToRunAlone(item.claim.id)
    assert again.message.tag not in desk.source.settled
    assert desk.status(again) == ExecutionStatus.PENDING
    assert again.slot.taken is not None
    # Its message came here: the relay of a process that leaves others alone publishes it again.
    app = replace(desk.app, own=Own("worker"))
    Taken(app, again.slot.taken.request, again.claim)
    assert app.own is not None
    assert app.own.identities == [Identity(item.claim.id)]


def _claimed(desk: Desk) -> Item:
    item = desk.put()
    assert desk.queued(1) == [item]
    return item


def test_a_callback_that_cannot_be_is_its_handlers_to_refuse(desk: Desk) -> None:
    item = desk.put(callback=Callback(url="https://169.254.169.254/latest", secret="A_WEBHOOK_SECRET"))
    assert desk.queued(1) == [item]
    assert item.claim is None
    assert desk.status(item) is None


def test_what_the_policy_denies_is_its_handlers_to_refuse(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tells, and nothing is told here: the audit has one line."""
    monkeypatch.setattr("workers.security.authorization.ROLES", {})
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.claim is None
    assert desk.status(item) is None
    assert "denied" not in caplog.text


def test_a_claim_that_fails_is_its_handlers_to_tell(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection, *_: Any, **__: Any) -> Sequence[Any]:
        raise ValueError("poison")

    monkeypatch.setattr(executions, "claim", fail)
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.claim is None
    assert desk.source.settled == {}
    item.slot.leave()
    assert desk.intake.wait(0)


def test_a_writer_that_is_closed(desk: Desk) -> None:
    desk.app.claimer.close()
    item = desk.put()
    assert desk.queued(1) == [item]
    assert item.claim is None
    with pytest.raises(WriterClosed):
        desk.app.claimer.call(desk.app.writes.hand_over, Identity(uuid7()))


@pytest.mark.parametrize(("threads", "slots"), [(1, 1), (7, 7), (8, 9), (20, 22)])
def test_one_more_for_every_eight_threads(start: Callable[..., System], threads: int, slots: int) -> None:
    system = start(running=False, threads=threads)
    intake = Intake(system.app)
    assert (intake._free, intake.threads) == (slots, threads + 8)
    system._stopped = True  # its threads were never started
    system.app.close()


def _begun_and_not(desk: Desk) -> tuple[Item, UUID]:
    """A claimed execution that a thread has begun, and the id of one that none has."""
    begun, unbegun = desk.put(), desk.put()
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    taken: Any = desk.intake.get_nowait()
    assert taken is begun
    return begun, unbegun.claim.id


def _given_back(desk: Desk, execution_id: UUID) -> bool:
    row = desk.system.row(execution_id)
    return row is not None and (row.status, row.attempt) == (ExecutionStatus.PENDING, 0)


def test_closed_it_gives_back_what_is_claimed_and_not_begun(desk: Desk) -> None:
    begun, unbegun = _begun_and_not(desk)
    desk.intake.close()
    assert len(desk.intake) == 0
    assert desk.app.in_flight.executions == {Identity(begun.claim.id)}
    assert wait_until(lambda: _given_back(desk, unbegun), PATIENCE)
    assert not desk.intake.wait(0)
    begun.slot.leave()
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
    begun.slot.leave()
    thread.join(PATIENCE)
    assert alone.is_set()


def test_what_is_claimed_as_one_waits_to_run_alone_is_given_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, claiming, go_on = executions.claim, threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        claiming.set()
        assert go_on.wait(PATIENCE)
        return claim(*arguments, **options)

    monkeypatch.setattr(executions, "claim", slow)
    item = desk.put()
    assert claiming.wait(PATIENCE)
    thread = threading.Thread(target=_run_alone, args=(desk,))
    thread.start()
    assert wait_until(lambda: desk.app.isolation.wanted, PATIENCE)
    go_on.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert wait_until(lambda: _given_back(desk, item.claim.id), PATIENCE)
    assert len(desk.intake) == 0
    assert desk.intake.wait(PATIENCE)


def _run_alone(desk: Desk) -> None:
    with desk.app.isolation.alone(Identity(uuid7())):
        pass


def test_closed_it_claims_nothing_and_waits_for_what_is_claimed(desk: Desk) -> None:
    items = [desk.put() for _ in range(3)]
    taken = desk.queued(2)
    desk.intake.close()
    late = desk.put()
    assert not desk.intake.wait(0.01)
    for item in taken:
        item.slot.leave()
    assert desk.intake.wait(PATIENCE)
    assert len(desk.intake) == 0
    assert [desk.status(item) for item in (items[2], late)] == [None, None]
    assert set(desk.source.settled) == {1, 2}


def test_what_is_cancelled_before_a_thread_has_it_ends_without_one(desk: Desk) -> None:
    """Where every thread is busy for long, none would take it soon."""
    first, cancelled = desk.put(), desk.put()
    waiting = desk.put()
    assert wait_until(lambda: len(desk.intake) == 2, PATIENCE)
    execution_id = cancelled.claim.id
    with desk.app.engine.begin() as connection:
        executions.cancel(connection, execution_id, by="tests")
    desk.app.in_flight.cancel({Identity(execution_id)})
    assert wait_until(lambda: desk.status(cancelled) == ExecutionStatus.CANCELLED, PATIENCE)
    assert desk.queued(2) == [first, waiting]
    assert desk.app.in_flight.executions == {Identity(first.claim.id), Identity(waiting.claim.id)}
