"""What comes of a message: it is gone, dead-lettered, or somebody else's again, by what its job came to."""

from __future__ import annotations

import threading

import dramatiq
import pytest

from deploy.processes import wait_until
from dspex.amqp.topology import PROGRAMS_QUEUE
from dspex.contract.commands import Command
from dspex.contract.envelope import Envelope
from dspex.errors import DspexError
from tests.contract.brokers.rig import PATIENCE, Gate, Jobs, Rig, ids_of, message
from workers.brokers.settlement import DeadLetter, Requeue


def test_a_message_that_was_handled_is_gone(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    ids = jobs.send(20)
    jobs.wait_for(ids)
    jobs.stop()
    assert sorted(jobs.handled) == sorted(ids)
    assert rig.take(PROGRAMS_QUEUE) == []
    assert rig.dead_letters(PROGRAMS_QUEUE) == []


def test_dead_letter(rig: Rig, jobs: Jobs) -> None:
    def act(_envelope: Envelope[Command]) -> None:
        raise DeadLetter("no")

    jobs.act = act
    jobs.start(threads=1)
    envelopes = [message() for _ in range(3)]
    for envelope in envelopes:
        rig.put(PROGRAMS_QUEUE, envelope.encode())
    dead: list[bytes] = []

    def all_dead() -> bool:
        dead.extend(rig.dead_letters(PROGRAMS_QUEUE))
        return len(dead) >= 3

    assert wait_until(all_dead, PATIENCE)
    assert dead == [envelope.encode() for envelope in envelopes]
    jobs.stop()
    assert rig.take(PROGRAMS_QUEUE) == []


def test_requeue(rig: Rig, jobs: Jobs) -> None:
    tries: list[str] = []

    def act(envelope: Envelope[Command]) -> None:
        tries.append(envelope.id)
        if tries.count(envelope.id) < 3:
            raise Requeue("later")

    jobs.act = act
    jobs.start()
    ids = jobs.send(5)
    jobs.wait_for(ids)
    assert sorted(tries) == sorted(3 * ids)
    jobs.stop()
    assert rig.take(PROGRAMS_QUEUE) == []
    assert rig.dead_letters(PROGRAMS_QUEUE) == []


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, DspexError, dramatiq.errors.Retry])
def test_an_unexpected_exception(rig: Rig, jobs: Jobs, kind: type[BaseException]) -> None:
    failing: list[str] = []

    def act(envelope: Envelope[Command]) -> None:
        if envelope.id in failing:
            raise kind("unexpected")

    jobs.act = act
    jobs.start()
    bad = message()
    failing.append(bad.id)
    rig.put(PROGRAMS_QUEUE, bad.encode())
    jobs.wait_for(jobs.send(10))
    jobs.stop()
    assert bad.id not in jobs.handled
    assert ids_of(rig.dead_letters(PROGRAMS_QUEUE)) == [bad.id]


def test_what_is_not_settled_goes_back_in_its_order(rig: Rig, jobs: Jobs) -> None:
    gate = Gate()
    jobs.act = gate
    jobs.start(threads=1, prefetch=4)
    ids = jobs.send(10)
    gate.wait_for(1)
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 6, PATIENCE)
    worker = jobs.worker
    stopping = threading.Thread(target=jobs.stop)
    stopping.start()
    assert wait_until(lambda: not any(thread.running for thread in worker.workers), PATIENCE)
    gate.open()
    stopping.join(PATIENCE)
    assert jobs.handled == ids[:1]
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 9, PATIENCE)
    assert ids_of(rig.take(PROGRAMS_QUEUE)) == ids[1:]
    assert rig.dead_letters(PROGRAMS_QUEUE) == []


def test_a_job_that_is_abandoned_settles_nothing(rig: Rig, jobs: Jobs) -> None:
    """The consumer is gone, its message is somebody else's now: what the job came to is ignored."""
    gate = Gate()
    jobs.act = gate
    jobs.start(threads=1, prefetch=1)
    ids = jobs.send(1)
    gate.wait_for(1)
    threads = jobs.abandon()
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 1, PATIENCE)
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert jobs.handled == ids
    assert ids_of(rig.take(PROGRAMS_QUEUE)) == ids


def test_what_is_settled_in_any_order_is_settled(rig: Rig, jobs: Jobs) -> None:
    """Acks go out in groups: whichever end together, the others are still the broker's."""
    gates = {number: threading.Event() for number in range(8)}
    numbers: dict[str, int] = {}

    def act(envelope: Envelope[Command]) -> None:
        number = numbers[envelope.id]
        assert gates[number].wait(PATIENCE)
        if number == 6:
            raise DeadLetter("no")

    jobs.act = act
    envelopes = [message() for _ in range(8)]
    numbers.update({envelope.id: number for number, envelope in enumerate(envelopes)})
    for envelope in envelopes:
        rig.put(PROGRAMS_QUEUE, envelope.encode())
    jobs.start(threads=8, prefetch=8)
    for number in (4, 1, 6, 2):  # the oldest still runs, and so do some in between
        gates[number].set()
    expected = [envelopes[number].id for number in (1, 2, 4)]
    jobs.wait_for(expected)
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 0, PATIENCE)
    threads = jobs.abandon()
    assert wait_until(lambda: rig.ready(PROGRAMS_QUEUE) == 4, PATIENCE)
    for gate in gates.values():
        gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ids_of(rig.take(PROGRAMS_QUEUE)) == [envelopes[number].id for number in (0, 3, 5, 7)]
    assert ids_of(rig.dead_letters(PROGRAMS_QUEUE)) == [envelopes[6].id]
