"""A broker with a way around it, and a worker over it that does what a test says."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import dramatiq
import pika
from pika.adapters.blocking_connection import BlockingChannel

from deploy.processes import wait_until
from dspex import ExecuteProgram, InitializeProgram, uuid7, wrap
from dspex.amqp.publisher import AmqpPublisher
from dspex.amqp.topology import PROGRAMS_QUEUE, queue_of
from dspex.contract.commands import Command
from dspex.contract.envelope import MAX_MESSAGE_BYTES, Envelope
from tests.queues import declare_empty
from workers.brokers.amqp import AmqpBroker
from workers.brokers.encoding import REJECT, Origin
from workers.brokers.memory import MemoryBroker
from workers.brokers.settlement import DeadLetter, Requeue
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
