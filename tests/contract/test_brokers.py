"""What Dramatiq's worker, and ours, need of a broker: one suite over the in-process one and RabbitMQ's two queues."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from deploy.processes import wait_until
from dspex import ExecuteProgram, InitializeProgram, uuid7, wrap
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE, queue_of
from dspex.contract.commands import Command
from dspex.contract.envelope import MAX_MESSAGE_BYTES, Envelope
from dspex.errors import DspexError
from tests.queues import QUEUE_TYPES, declare_empty
from workers.brokers.amqp import AmqpBroker
from workers.brokers.encoding import REJECT, CloudEventEncoder, Origin
from workers.brokers.memory import MemoryBroker
from workers.brokers.settlement import DeadLetter, Requeue, ack_early
from workers.brokers.topology import QueueType, dead_letter_queue

PATIENCE = 30.0


class Rig(ABC):
    """A broker, and the way around it to see what it did."""

    broker: dramatiq.Broker

    @abstractmethod
    def put(self, queue: str, body: bytes) -> None:
        """Put a body into a queue, whatever it is."""

    @abstractmethod
    def ready(self, queue: str) -> int:
        """How many messages wait in a queue, delivered to nobody."""

    @abstractmethod
    def take(self, queue: str) -> list[bytes]:
        """Remove what waits in a queue, oldest first."""

    @abstractmethod
    def dead_letters(self, queue: str) -> list[bytes]:
        """Remove what was dead-lettered from a queue, oldest first."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""


class MemoryRig(Rig):
    def __init__(self) -> None:
        self.broker = self._memory = MemoryBroker(max_bytes=MAX_MESSAGE_BYTES)

    def put(self, queue: str, body: bytes) -> None:
        self._memory.put(queue, body, PATIENCE)

    def ready(self, queue: str) -> int:
        return len(self._memory.queues[queue]._bodies)

    def take(self, queue: str) -> list[bytes]:
        taken = []
        while (body := self._memory.queues[queue].get(0)) is not None:
            taken.append(body)
        return taken

    def dead_letters(self, queue: str) -> list[bytes]:
        dead = self._memory.dead_letters(queue)
        self._memory.queues[queue].dead_letters.clear()
        return dead

    def close(self) -> None:
        pass


class AmqpRig(Rig):
    def __init__(self, url: str, queue_type: QueueType) -> None:
        declare_empty(url, queue_type)
        self._publisher = AmqpPublisher(url)
        self.broker = AmqpBroker(url, self._publisher, max_bytes=MAX_MESSAGE_BYTES, queue_type=queue_type)
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel: BlockingChannel = self._connection.channel()
        self._channel.confirm_delivery()

    def put(self, queue: str, body: bytes) -> None:
        self._channel.basic_publish("", queue, body, mandatory=True)

    def ready(self, queue: str) -> int:
        count: int = self._channel.queue_declare(queue, passive=True).method.message_count
        return count

    def take(self, queue: str) -> list[bytes]:
        taken: list[bytes] = []
        while True:
            method, _, body = self._channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append(body or b"")

    def dead_letters(self, queue: str) -> list[bytes]:
        return self.take(dead_letter_queue(queue))

    def close(self) -> None:
        self._connection.close()
        self._publisher.close(timeout=1)


@pytest.fixture(
    scope="module", params=["memory", *(pytest.param(kind, marks=pytest.mark.integration) for kind in QUEUE_TYPES)]
)
def broker_kind(request: pytest.FixtureRequest) -> str:
    """The broker in memory, or the type of RabbitMQ's queues."""
    kind: str = request.param
    return kind


@pytest.fixture
def rig(request: pytest.FixtureRequest, broker_kind: Any) -> Iterator[Rig]:
    rig = MemoryRig() if broker_kind == "memory" else AmqpRig(request.getfixturevalue("own_amqp_url"), broker_kind)
    encoder = dramatiq.get_encoder()
    dramatiq.set_encoder(CloudEventEncoder())
    yield rig
    rig.close()
    dramatiq.set_encoder(encoder)


class Jobs:
    """A worker over the broker of a rig. Each message is handled by `act`, which the test sets."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.act: Callable[[Envelope[Command]], None] = lambda _: None
        self.handled: list[str] = []
        self.rejected: list[dict[str, Any]] = []
        self._worker: dramatiq.Worker | None = None

        def handle(envelope: Envelope[Command], body: bytes, origin: Origin) -> None:
            self.act(envelope)
            self.handled.append(envelope.id)

        def reject(**details: Any) -> None:
            self.rejected.append(details)
            raise DeadLetter("no")

        for command, priority in ((InitializeProgram, 0), (ExecuteProgram, 10)):
            dramatiq.actor(
                actor_name=command.type,
                queue_name=queue_of(command.type),
                priority=priority,
                broker=rig.broker,
                throws=(DeadLetter, Requeue),
            )(handle)
        dramatiq.actor(actor_name=REJECT, queue_name=PROGRAMS_QUEUE, broker=rig.broker, throws=(DeadLetter,))(reject)

    def start(self, *, threads: int = 2, prefetch: int = 4) -> None:
        self._worker = dramatiq.Worker(self.rig.broker, worker_threads=threads, worker_timeout=50)
        self._worker.queue_prefetch = prefetch
        self._worker.start()

    @property
    def worker(self) -> dramatiq.Worker:
        assert self._worker is not None
        return self._worker

    def stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def abandon(self) -> list[threading.Thread]:
        """Stop without what runs, as a process does whose time to shut down is over; returns the threads."""
        threads: list[threading.Thread] = list(self.worker.workers)
        for thread in self.worker.workers:
            thread.stop()
        self.worker.workers.clear()
        self.stop()
        return threads

    def send(self, number: int = 1) -> list[str]:
        """Put messages into the queue of programs; returns their ids."""
        envelopes = [message() for _ in range(number)]
        for envelope in envelopes:
            self.rig.put(PROGRAMS_QUEUE, envelope.encode())
        return [envelope.id for envelope in envelopes]

    def wait_for(self, ids: list[str]) -> None:
        """Until all of these have been handled without an error."""
        assert wait_until(lambda: set(self.handled) >= set(ids), PATIENCE), self.handled


def message() -> Envelope[Command]:
    return wrap(InitializeProgram(program_id=uuid7()), source="/tests")


def ids_of(bodies: list[bytes]) -> list[str]:
    return [json.loads(body)["id"] for body in bodies]


@pytest.fixture
def jobs(rig: Rig) -> Iterator[Jobs]:
    jobs = Jobs(rig)
    yield jobs
    jobs.stop()


class Gate:
    """Holds jobs until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, envelope: Envelope[Command]) -> None:
        self._entered.release()
        assert self._open.wait(PATIENCE)

    def wait_for(self, jobs: int) -> None:
        for _ in range(jobs):
            assert self._entered.acquire(timeout=PATIENCE)

    def open(self) -> None:
        self._open.set()


def test_a_message_that_was_handled_is_gone(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    ids = jobs.send(20)
    jobs.wait_for(ids)
    jobs.stop()
    assert sorted(jobs.handled) == sorted(ids)
    assert rig.take(PROGRAMS_QUEUE) == []
    assert rig.dead_letters(PROGRAMS_QUEUE) == []


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


def raw(**fields: Any) -> bytes:
    """A message as Dramatiq's own encoder writes it."""
    envelope: dict[str, Any] = {
        "queue_name": PROGRAMS_QUEUE,
        "actor_name": InitializeProgram.type,
        "args": [],
        "kwargs": {},
        "options": {},
        "message_id": "1",
        "message_timestamp": 1,
    }
    return json.dumps(envelope | fields).encode()


def cloud_event(**fields: Any) -> bytes:
    return json.dumps(json.loads(message().encode()) | fields).encode()


POISON = {
    "empty": (b"", "malformed_message"),
    "garbage": (b"\xff\x00garbage", "malformed_message"),
    "not an object": (b"[]", "malformed_message"),
    "deep": (b'{"specversion": "1.0", "data": ' + b"[" * 50_000, "malformed_message"),
    "unknown type": (cloud_event(type="dspex.unknown.v1"), "unknown_message_type"),
    "type of the reject actor": (cloud_event(type=REJECT), "unknown_message_type"),
    "type is no text": (cloud_event(type=["a"]), "unknown_message_type"),
    "wrong data": (cloud_event(data={"program_id": "x"}), "invalid_message"),
    "no data": (cloud_event(data=None), "invalid_message"),
    "unknown attribute": (cloud_event(options={"throws": "x"}), "invalid_message"),
    "wrong id": (cloud_event(id=None), "invalid_message"),
    "U+0000": (cloud_event(source="a\x00"), "invalid_message"),
    "too large": (cloud_event(source="x" * 2 * 1024 * 1024), "message_too_large"),
    "raw": (raw(), "malformed_message"),
    "raw, options null": (raw(options=None), "malformed_message"),
    "raw, eta": (raw(options={"eta": "soon"}), "malformed_message"),
    "raw, throws": (raw(options={"throws": "x"}), "malformed_message"),
    "raw, pipe target": (raw(options={"pipe_target": raw().decode()}), "malformed_message"),
    "raw, foreign queue": (raw(queue_name="foreign"), "malformed_message"),
    "raw, other queue": (raw(queue_name=EXECUTIONS_QUEUE), "malformed_message"),
    "raw, actor is no text": (raw(actor_name=7), "malformed_message"),
    "raw, a key more": (raw(more=1), "malformed_message"),
}


@pytest.mark.parametrize("queue", [PROGRAMS_QUEUE, EXECUTIONS_QUEUE])
def test_poison_is_rejected_and_the_next_message_runs(rig: Rig, jobs: Jobs, queue: str) -> None:
    jobs.start()
    for name, (body, code) in POISON.items():
        rig.put(queue, body)
        good = message()
        rig.put(queue, good.encode())
        jobs.wait_for([good.id])
        assert wait_until(lambda: len(jobs.rejected) == 1, PATIENCE), name
        details = jobs.rejected.pop()
        assert details["error"].code == code, name
        assert details["origin"].queue == queue
        assert details["body"] == body[:MAX_MESSAGE_BYTES]
        assert details["body_size"] == len(body)
    assert all(thread.is_alive() for thread in (*jobs.worker.workers, *jobs.worker.consumers.values()))
    jobs.stop()
    assert rig.take(queue) == []
    dead = rig.dead_letters(queue)
    assert sorted(dead) == sorted(body for body, _ in POISON.values())


def test_a_rejected_message_names_itself_where_it_can(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    rig.put(PROGRAMS_QUEUE, cloud_event(id="mine\x00" + "x" * 600, type="some.type"))
    rig.put(PROGRAMS_QUEUE, cloud_event(id=7, type=None))
    assert wait_until(lambda: len(jobs.rejected) == 2, PATIENCE)
    named, nameless = sorted(jobs.rejected, key=lambda details: details["message_id"] is None)
    assert named["message_id"].startswith("mine")
    assert "\x00" not in named["message_id"]
    assert len(named["message_id"]) <= 512
    assert named["message_type"] == "some.type"
    assert (nameless["message_id"], nameless["message_type"]) == (None, None)


def test_enqueue_is_a_publish(rig: Rig, jobs: Jobs) -> None:
    jobs.start()
    envelope = message()
    actor = rig.broker.get_actor(InitializeProgram.type)
    assert wait_until(lambda: all(thread.consumer for thread in jobs.worker.consumers.values()), PATIENCE)
    rig.broker.enqueue(actor.message(envelope=envelope))
    jobs.wait_for([envelope.id])
    with pytest.raises(ValueError, match="delay"):
        rig.broker.enqueue(actor.message(envelope=envelope), delay=1)
