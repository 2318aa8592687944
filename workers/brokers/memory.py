"""The in-process broker: the same messages, encoder and actors, without a server. It stores nothing durably."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any

import dramatiq

from dspex.amqp.publication import Publication
from dspex.amqp.topology import BINDINGS, EVENTS_EXCHANGE, EXCHANGES, Binding, Exchange
from dspex.errors import BrokerUnavailable, NotDeclared, PublishError, Unroutable
from workers.brokers.delivery import Delivery, Disposition
from workers.brokers.encoding import Admit, Content, Origin, read
from workers.brokers.settlement import Settlement, SettlingConsumer

LOGIN = "memory"
"""The login of all messages of this broker, as they come from this process."""

MAX_DEAD_LETTERS = 1_000
MAX_DEAD_BYTES = 32 * 1024 * 1024
"""How many bytes of dead-lettered bodies are kept for each queue; the database has recorded the messages."""

Listener = Callable[[str, bytes], None]


class MemoryBroker(dramatiq.Broker):
    """Queues of message bodies in this process. Publishing blocks while the queue is full."""

    def __init__(
        self,
        *,
        max_bytes: int,
        max_length: int = 10_000,
        admit: Admit | None = None,
    ) -> None:
        super().__init__(middleware=[Settlement()])
        self.queues: dict[str, _Queue] = {}
        self.max_bytes = max_bytes
        self.max_length = max_length
        self.admit = admit

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue, unless it exists."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = _Queue(self.max_length)
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> dramatiq.Consumer:
        """Consume a queue; `timeout` is in milliseconds."""
        return MemoryConsumer(self, queue_name, prefetch, timeout / 1000)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Put a command into its queue."""
        if delay is not None:
            raise ValueError("delay: a message cannot wait in the broker")
        self.put(message.queue_name, message.encode(), timeout=30.0)
        return message

    def put(self, queue_name: str, body: bytes, timeout: float) -> None:
        """Put a body into a queue.

        Raises:
            Unroutable: the queue does not exist.
            BrokerUnavailable: the queue was full for `timeout` seconds.
        """
        queue = self.queues.get(queue_name)
        if queue is None:
            raise Unroutable(f"there is no queue '{queue_name}': start the workers first")
        if not queue.put(body, timeout):
            raise BrokerUnavailable(f"queue '{queue_name}' is full: {self.max_length} messages wait")

    def dead_letters(self, queue_name: str) -> list[bytes]:
        """The kept bodies that were dead-lettered from a queue, newest last."""
        return list(self.queues[queue_name].dead_letters)


class _Queue:
    def __init__(self, max_length: int) -> None:
        self.dead_letters: deque[bytes] = deque(maxlen=MAX_DEAD_LETTERS)
        self._bodies: deque[bytes] = deque()
        self._max_length = max_length
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._freed = threading.Condition(lock)

    def put(self, body: bytes, timeout: float) -> bool:
        with self._freed:
            if not self._freed.wait_for(lambda: len(self._bodies) < self._max_length, timeout):
                return False
            self._bodies.append(body)
            self._filled.notify()
            return True

    def put_back(self, bodies: Iterable[bytes]) -> None:
        with self._filled:
            self._bodies.extendleft(bodies)
            self._filled.notify_all()

    def bury(self, body: bytes) -> None:
        with self._filled:
            self.dead_letters.append(body)
            while len(self.dead_letters) > 1 and sum(map(len, self.dead_letters)) > MAX_DEAD_BYTES:
                self.dead_letters.popleft()

    def get(self, timeout: float) -> bytes | None:
        with self._filled:
            if not self._filled.wait_for(lambda: self._bodies, timeout):
                return None
            self._freed.notify()
            return self._bodies.popleft()


class MemoryConsumer(SettlingConsumer):
    """Consumes one queue. Unsettled bodies return to it when the consumer closes."""

    def __init__(self, broker: MemoryBroker, queue_name: str, prefetch: int, timeout: float) -> None:
        self._queue = broker.queues[queue_name]
        self._queue_name = queue_name
        self._max_bytes = broker.max_bytes
        self._admit = broker.admit
        self._timeout = timeout
        self._free = threading.BoundedSemaphore(prefetch)
        self._unsettled: dict[int, bytes] = {}
        self._tags = itertools.count(1)

    def __next__(self) -> Delivery | None:
        if not self._free.acquire(timeout=self._timeout):
            return None
        body = self._queue.get(self._timeout)
        if body is None:
            self._free.release()
            return None
        tag = next(self._tags)
        self._unsettled[tag] = body
        message = read(Content(body), Origin(self._queue_name, LOGIN), self._max_bytes, admit=self._admit)
        return Delivery(message, self, tag)

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Drop the body, put it back, or dead-letter it. After `close` it is already back."""
        body = self._unsettled.pop(delivery.tag, None)
        if body is None:
            return
        self._free.release()
        if disposition is Disposition.REQUEUE:
            self._queue.put_back([body])
        elif disposition is Disposition.DEAD_LETTER:
            self._queue.bury(body)

    def close(self) -> None:
        """Put unsettled bodies back, in their order."""
        taken = [self._unsettled.pop(tag, None) for tag in sorted(self._unsettled, reverse=True)]
        self._queue.put_back(body for body in taken if body is not None)


class MemoryPublisher:
    """A `dspex.amqp.publisher.Publisher` for a `MemoryBroker`. Events go to listeners in this process.

    Keeps only the body of a message, as the envelope repeats the properties.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        timeout: float = 30.0,
        exchanges: Sequence[Exchange] = EXCHANGES,
        bindings: Sequence[Binding] = BINDINGS,
    ) -> None:
        self._broker = broker
        self._timeout = timeout
        self._exchanges = exchanges
        self._bindings = bindings
        self._closed = False
        self._listeners: list[Listener] = []
        self._queues_of = lru_cache(maxsize=256)(self._find_queues)

    @property
    def limit(self) -> int | None:
        """See `Publisher.limit`. There is none."""
        return None

    def listen(self, listener: Listener) -> None:
        """Call `listener(routing_key, body)` for each event, in the publishing thread."""
        self._listeners.append(listener)

    def submit(self, publication: Publication, *, timeout: float | None = None) -> Future[None]:
        """Route a message like RabbitMQ, by `dspex.amqp.topology`."""
        if self._closed:
            raise BrokerUnavailable("the publisher is closed: make a new one")
        future: Future[None] = Future()
        try:
            self._route(publication, self._timeout if timeout is None else timeout)
        except PublishError as error:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    def publish(self, publication: Publication, *, timeout: float | None = None) -> None:
        """See `Publisher.publish`."""
        self.submit(publication, timeout=timeout).result()

    def close(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Refuse further messages. None is unconfirmed."""
        self._closed = True

    def _route(self, publication: Publication, timeout: float) -> None:
        body, exchange, routing_key = publication.body, publication.exchange, publication.routing_key
        if exchange == EVENTS_EXCHANGE:
            for listener in self._listeners:
                listener(routing_key, body)
            if publication.mandatory and not self._listeners:
                raise Unroutable(f"nobody listens to '{exchange}'")
            return
        queues = self._queues_of(exchange, routing_key)
        if not queues and publication.mandatory:
            raise Unroutable(f"no queue is bound to '{exchange}' for '{routing_key}' in dspex.topology")
        for queue in queues:
            self._broker.put(queue, body, timeout)

    def _find_queues(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        known = next((e for e in self._exchanges if e.name == exchange), None)
        if known is None:
            raise NotDeclared(f"there is no exchange '{exchange}' in dspex.topology")
        key = routing_key.split(".")
        queues = tuple(
            b.queue
            for b in self._bindings
            if b.exchange == exchange and (known.kind == "fanout" or _matches(b.routing_key.split("."), key))
        )
        return self._find_queues(known.alternate, routing_key) if not queues and known.alternate else queues


def _matches(pattern: Sequence[str], key: Sequence[str]) -> bool:
    """Whether a key matches the pattern of a topic exchange: `*` stands for one word, `#` for any number."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(_matches(pattern[1:], key[words:]) for words in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and _matches(pattern[1:], key[1:])
