"""The interface over the broker: a command goes to the exchange, its answer comes to a reply queue of this client."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

import pika
import pika.exceptions
from pydantic import BaseModel

from dspex.amqp_errors import address, describe, refusal
from dspex.commands import Command, ExecuteProgram
from dspex.envelope import decode_event, wrap
from dspex.errors import BrokerUnavailable, MessageError, NoAnswer, Problem, RequestFailed
from dspex.events import Reply
from dspex.interface import DEFAULT_TIMEOUT, Interface
from dspex.publisher import AmqpPublisher, amqp_parameters
from dspex.queries import GetExecution
from dspex.results import ExecutionView
from dspex.topology import COMMANDS_EXCHANGE

logger = logging.getLogger(__name__)

View = TypeVar("View", bound=BaseModel)

_CONNECTION_ERRORS = (pika.exceptions.AMQPError, AssertionError, OSError)
ASK_AGAIN_SECONDS = 5.0
"""An execution whose answer does not come is looked up this often: its worker may have died, or the reply queue."""
RECONNECT_SECONDS = 1.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""A page of executions is larger than a message."""


class RemoteClient(Interface):
    """Thread-safe; connects at the first call, and again when the broker comes back.

    Args:
        url: `amqp://user:password@host:5672/vhost`.
        source: who asks, a URI reference such as `/orders` (CloudEvents `source`).
        timeout: seconds to wait for an answer, where a call does not say.
    """

    def __init__(self, url: str, *, source: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._source = source
        self._timeout = timeout
        self._publisher = AmqpPublisher(url, timeout=timeout)
        self._replies = _Replies(url)

    def call(self, command: Command, answer: type[View], *, timeout: float | None = None) -> View:
        """See `Interface.call`. An execution's answer is looked up where it does not come."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        future = self._ask(command, deadline)
        try:
            if not isinstance(command, ExecuteProgram):
                return _answer(future, answer, command, deadline - time.monotonic())
            return self._await_execution(command, future, answer, deadline)
        finally:
            future.cancel()

    def _await_execution(
        self, command: ExecuteProgram, future: Future[Reply], answer: type[View], deadline: float
    ) -> View:
        while True:
            try:
                return _answer(future, answer, command, min(ASK_AGAIN_SECONDS, deadline - time.monotonic()))
            except NoAnswer:
                if time.monotonic() >= deadline:
                    raise
                found = self._ended(command, deadline)
                if found is not None:
                    return answer.model_validate(found.model_dump())

    def close(self) -> None:
        """Disconnect; calls that wait for an answer fail."""
        self._publisher.close()
        self._replies.close()

    def _ask(self, command: Command, deadline: float) -> Future[Reply]:
        envelope = wrap(command, source=self._source)
        future, queue = self._replies.expect(envelope.id, deadline)
        self._publisher.publish(
            envelope.encode(),
            exchange=COMMANDS_EXCHANGE,
            routing_key=command.type,
            message_id=envelope.id,
            correlation_id=envelope.id,
            reply_to=queue,
            timeout=max(0.0, deadline - time.monotonic()),
        )
        return future

    def _ended(self, command: ExecuteProgram, deadline: float) -> ExecutionView | None:
        query = GetExecution(
            execution_id=None if command.idempotency_key else command.execution_id,
            idempotency_key=command.idempotency_key,
        )
        try:
            patience = min(ASK_AGAIN_SECONDS, max(0.0, deadline - time.monotonic()))
            found = self.call(query, ExecutionView, timeout=patience)
        except (NoAnswer, RequestFailed):
            return None
        return found if found.status.terminal else None


def _answer(future: Future[Reply], answer: type[View], command: Command, timeout: float) -> View:
    try:
        reply = future.result(timeout=max(0.0, timeout))
    except FutureTimeout:
        raise NoAnswer(f"{command.type}: no answer; is a worker running? It may still be carried out") from None
    if reply.error is not None:
        problems = [Problem(p.field, p.message) for p in reply.error.problems]
        raise RequestFailed(reply.error.code, reply.error.message, problems)
    return answer.model_validate(reply.answer, extra="ignore")  # what a later version added


class _Replies:
    """One reply queue, consumed by one thread; answers are matched by correlation id."""

    def __init__(self, url: str) -> None:
        self._parameters = amqp_parameters(url)
        self._queue = ""
        self._waiting: dict[str, Future[Reply]] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._refusal: str | None = None
        self._pid = 0

    def expect(self, correlation_id: str, deadline: float) -> tuple[Future[Reply], str]:
        """A future of the answer, and the queue that it will come to."""
        with self._lock:
            if self._pid != os.getpid():  # a child of a fork has no thread
                self._thread, self._pid = None, os.getpid()
                self._ready.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspex-replies", daemon=True)
                self._thread.start()
        while not self._ready.wait(0.05):
            if self._refusal is not None:
                raise BrokerUnavailable(self._refusal)
            if self._closed.is_set() or time.monotonic() > deadline:
                raise BrokerUnavailable(f"{address(self._parameters)} cannot be reached; is it running?")
        future: Future[Reply] = Future()
        self._waiting[correlation_id] = future
        future.add_done_callback(lambda _: self._waiting.pop(correlation_id, None))
        return future, self._queue

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._consume()
            except _CONNECTION_ERRORS as error:
                self._ready.clear()
                self._refusal = refusal(error, self._parameters)
                logger.info("The reply queue is gone, connecting again: %s", describe(error))
                self._closed.wait(RECONNECT_SECONDS)

    def _consume(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        channel = connection.channel()
        self._queue = channel.queue_declare("", exclusive=True).method.queue
        replies = channel.consume(self._queue, auto_ack=True, inactivity_timeout=0.5)
        self._refusal = None
        self._ready.set()
        for method, properties, body in replies:
            if self._closed.is_set():
                break
            if method is not None and properties is not None and body is not None:
                self._take(properties.correlation_id, body)
        connection.close()

    def _take(self, correlation_id: Any, body: bytes) -> None:
        future = self._waiting.get(correlation_id)
        if future is None:
            return
        with suppress(InvalidStateError):  # whoever asked has given up
            try:
                reply = decode_event(body, MAX_ANSWER_BYTES).data
            except MessageError as error:
                future.set_exception(error)
                return
            if isinstance(reply, Reply):
                future.set_result(reply)
