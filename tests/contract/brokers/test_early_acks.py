"""A message that is acked before its job has ended: the job runs on, and nothing is left to settle."""

from __future__ import annotations

import threading

import pytest

from deploy.processes import wait_until
from dspex.amqp.topology import PROGRAMS_QUEUE
from dspex.contract.commands import Command
from dspex.contract.envelope import Envelope
from tests.contract.brokers.rig import PATIENCE, Gate, Jobs, Rig, ids_of, message
from workers.brokers.settlement import DeadLetter, Requeue, ack_early


def test_an_early_ack_is_the_end_of_the_message(rig: Rig, jobs: Jobs) -> None:
    gate = Gate()

    def act(envelope: Envelope[Command]) -> None:
        ack_early()
        gate(envelope)

    jobs.act = act
    jobs.start(threads=2, prefetch=2)
    ids = jobs.send(4)
    gate.wait_for(2)
    # The two that run take no place: the other two are with the worker. It dies, and the broker has these two alone.
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 0, PATIENCE)
    threads = jobs.abandon()
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 2, PATIENCE)
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    running = set(jobs.handled)
    assert sorted(running) == sorted(jobs.handled)
    assert set(ids_of(rig.take(PROGRAMS_QUEUE))) == set(ids) - running
    assert rig.dead_letters(PROGRAMS_QUEUE) == []


@pytest.mark.parametrize("kind", [None, Requeue, DeadLetter, RuntimeError])
def test_after_an_early_ack_there_is_nothing_to_settle(
    rig: Rig, jobs: Jobs, kind: type[Exception] | None, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    def act(envelope: Envelope[Command]) -> None:
        tries.append(envelope.id)
        ack_early()
        ack_early()
        if kind is not None:
            raise kind("too late")

    jobs.act = act
    jobs.start(threads=4)
    ids = jobs.send(20)
    assert wait_until(lambda: len(tries) == 20, PATIENCE)
    jobs.act = lambda _: None
    jobs.wait_for(jobs.send(20))  # nothing is wrong with the consumer, and what was requeued would have come
    jobs.stop()
    assert sorted(tries) == sorted(ids)
    assert rig.take(PROGRAMS_QUEUE) == []
    assert rig.dead_letters(PROGRAMS_QUEUE) == []
    assert [record for record in caplog.records if record.name.startswith("workers")] == []


def test_an_early_ack_is_of_the_message_of_the_thread(rig: Rig, jobs: Jobs) -> None:
    """Of many that run at once, and some ack early, each other one that fails is dead-lettered."""
    barrier = threading.Barrier(4)
    early: set[str] = set()

    def act(envelope: Envelope[Command]) -> None:
        barrier.wait(PATIENCE)
        if envelope.id in early:
            ack_early()
        barrier.wait(PATIENCE)
        raise DeadLetter("no")

    jobs.act = act
    envelopes = [message() for _ in range(40)]
    early.update(envelope.id for envelope in envelopes[::3])
    for envelope in envelopes:
        rig.put(PROGRAMS_QUEUE, envelope.encode())
    jobs.start(threads=4, prefetch=8)
    expected = {envelope.id for envelope in envelopes} - early
    dead: list[str] = []

    def all_dead() -> bool:
        dead.extend(ids_of(rig.dead_letters(PROGRAMS_QUEUE)))
        return len(dead) >= len(expected)

    assert wait_until(all_dead, PATIENCE)
    jobs.stop()
    assert sorted(dead) == sorted(expected)
    assert rig.take(PROGRAMS_QUEUE) == []


def test_outside_of_an_actor_there_is_nothing_to_ack(rig: Rig, jobs: Jobs) -> None:
    gate = Gate()
    jobs.act = gate
    jobs.start(threads=1, prefetch=1)
    ids = jobs.send(1)
    gate.wait_for(1)
    ack_early()
    jobs.abandon()
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 1, PATIENCE)
    gate.open()
    assert ids_of(rig.take(PROGRAMS_QUEUE)) == ids
