"""How messages come to a worker: from both queues, in their order, and no more of them than it has asked for."""

from __future__ import annotations

import pytest

from deploy.processes import wait_until
from dspex import ExecuteProgram, InitializeProgram, uuid7, wrap
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE
from tests.contract.brokers.rig import PATIENCE, Gate, Jobs, Rig, message


def test_both_queues_are_consumed(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    execution = wrap(ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={}), source="/tests")
    rig.put(EXECUTIONS_QUEUE, execution.encode())
    jobs.wait_for([execution.id, *jobs.send()])


def test_a_command_runs_from_whichever_queue_it_is_in(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    envelope = message()
    rig.put(EXECUTIONS_QUEUE, envelope.encode())
    jobs.wait_for([envelope.id, *jobs.send()])
    jobs.stop()
    assert rig.take(EXECUTIONS_QUEUE) == []


def test_messages_are_handled_in_order(jobs: Jobs) -> None:
    jobs.start(threads=1, prefetch=10)
    ids = jobs.send(100)
    jobs.wait_for(ids)
    assert jobs.handled == ids


def test_prefetch_is_a_bound(rig: Rig, jobs: Jobs) -> None:
    gate = Gate()
    jobs.act = gate
    jobs.start(threads=1, prefetch=4)
    ids = jobs.send(10)
    gate.wait_for(1)
    least = [10]

    def taken() -> bool:
        least[0] = min(least[0], rig.ready(PROGRAMS_QUEUE))
        return least[0] == 6

    assert wait_until(taken, PATIENCE)
    assert not wait_until(lambda: rig.ready(PROGRAMS_QUEUE) < 6, 0.3)
    gate.open()
    jobs.wait_for(ids)
    assert jobs.handled == ids


def test_enqueue_is_a_publish(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    envelope = message()
    actor = rig.broker.get_actor(InitializeProgram.type)
    assert wait_until(lambda: all(thread.consumer for thread in jobs.worker.consumers.values()), PATIENCE)
    rig.broker.enqueue(actor.message(envelope=envelope))
    jobs.wait_for([envelope.id])
    with pytest.raises(ValueError, match="delay"):
        rig.broker.enqueue(actor.message(envelope=envelope), delay=1)
