"""The client over the broker: publishes commands to the exchange, and consumes answers from its reply queue.

with RemoteClient("amqp://...", source="/orders") as dspex:
    handles = [dspex.submit_program(program_id, {"question": text}) for text in questions]
    for handle in as_completed(handles, timeout=60):
        print(handle.inputs, handle.result())
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from ssl import SSLContext
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from pydantic import BaseModel

from dspex.amqp.publication import command_publication
from dspex.blobs import BlobStore
from dspex.blobs.values import THRESHOLD_BYTES
from dspex.client.completion import as_completed
from dspex.client.deadline import left
from dspex.client.handles import Handle
from dspex.client.interface import Interface
from dspex.client.pending import Pending, refused
from dspex.client.poller import Poller
from dspex.client.port import DEFAULT_TIMEOUT
from dspex.client.wakeups import Wakeups
from dspex.contract.commands import Command, ExecuteProgram
from dspex.contract.envelope import MAX_ANSWER_BYTES, wrap
from dspex.contract.events import Reply
from dspex.contract.queries import GetExecution, Query
from dspex.contract.results import ExecutionView
from dspex.errors import BrokerUnavailable, Denied, NoAnswer, NotFound, PublishError
from dspex.forks import renew_in_child
from dspex.ids import DEFAULT_TENANT

if TYPE_CHECKING:
    from dspex.amqp.replies import Expecting

__all__ = ["MAX_ANSWER_BYTES", "Handle", "RemoteClient", "as_completed"]

View = TypeVar("View", bound=BaseModel)

LOOK_SECONDS = 5.0
"""Seconds after which an execution is looked up if its answer has not come, as it may be lost."""
LOOK_UP_SECONDS = 5.0
"""Seconds that the look-up of some executions may take."""
LONGEST_SECONDS = 60.0
"""The longest interval between two look-ups, in seconds, while the answer can still come."""
LONGEST_UNTOLD_SECONDS = 10.0
"""The same if no answer can come: the execution was started elsewhere, or the reply queue was lost."""
FIRST_UNTOLD_SECONDS = 0.25


class RemoteClient(Interface):
    """The client over the broker. Connects at the first call, and reconnects. Thread-safe.

    Answers come to the client's reply queue. If the connection is lost, the client gets a new queue, and looks up its
    executions until they have ended.

    Args:
        url: `amqp://user:password@host:5672/vhost`.
        source: the CloudEvents `source` of its commands, a URI reference such as `/orders`.
        timeout: seconds to wait for an answer, unless a call gives its own.
        validate: check inputs against the program's signature before they are published. Takes two queries, once per
            program.
        redis_url: `redis://host:6379/0`, the same as the workers' `DSPEX_REDIS_URL`. With it, the client learns at once
            of the end of an execution that another client started; without it, only at the next look-up. Needs
            `dspex[redis]`.
        ssl_context: for `amqps://`; by default the system's authorities are trusted.
        tenant: for the workers' own login, which may act for any tenant. Any other login has one tenant, and gives it
            only where it has blobs.
        blobs: the same store as the workers' `DSPEX_BLOBS`: `dspex.blobs.open_store(…)`. With it, large inputs go
            there, and results come from there.
        blob_threshold: from how many bytes on an input goes to the blob store.

    Raises:
        SettingsError: a URL is invalid, or redis is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        source: str,
        timeout: float = DEFAULT_TIMEOUT,
        validate: bool = True,
        redis_url: str | None = None,
        ssl_context: SSLContext | None = None,
        tenant: str | None = None,
        blobs: BlobStore | None = None,
        blob_threshold: int = THRESHOLD_BYTES,
    ) -> None:
        # loads pika, which a process that only reads messages does not need
        from dspex.amqp.publisher import AmqpPublisher
        from dspex.amqp.url import amqp_parameters

        self.timeout = timeout
        self.validate = validate
        name = f"dspex client {source}"
        self._parameters = amqp_parameters(url, name, ssl_context)
        self._source = source
        self._tenant = tenant
        self.tenant = tenant or DEFAULT_TENANT
        self.blobs = blobs
        self.blob_threshold = blob_threshold
        self._redis_url = redis_url
        self._publisher = AmqpPublisher(url, timeout=timeout, ssl_context=ssl_context, name=name, patient=True)
        self._closed = False
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        """Make the parts that have threads. The threads start when they are needed."""
        from dspex.amqp.replies import Replies

        self._poller = Poller(self._look_up, self._longest)
        self._replies = Replies(self._parameters, lambda: self._poller.wake_all(FIRST_UNTOLD_SECONDS))
        self._wakeups = None
        if self._redis_url is not None:
            self._wakeups = Wakeups(self._redis_url, self._heard, lambda: self._poller.wake_all(LOOK_SECONDS))
        vars(self).pop("_signatures", None)  # a thread of the parent may have been fetching a signature

    def ask(self, command: Command, answer: type[View], *, timeout: float, traceparent: str | None = None) -> View:
        """See `Port.ask`."""
        deadline = time.monotonic() + timeout
        request = _Request()
        self._send(command, request, deadline, traceparent).result()
        reply = request.wait(deadline)
        if reply is None:
            carried_out = "" if isinstance(command, Query) else " It may still be carried out"
            raise NoAnswer(f"{command.type}: no answer in {timeout:.3g} s; is a worker running?{carried_out}")
        if reply.error is not None:
            raise refused(reply)
        return answer.model_validate(reply.answer, extra="ignore")  # ignores fields of later versions

    def start(
        self, command: ExecuteProgram, *, timeout: float | None = None, traceparent: str | None = None
    ) -> Pending:
        """See `Port.start`."""
        pending = Pending.of(command, traceparent)
        self._listen()
        deadline = time.monotonic() + left(self.timeout if timeout is None else timeout)
        pending.sent(self._send(command, pending, deadline, traceparent), self._publisher.trouble)
        self._poller.add(pending, LOOK_SECONDS, LOOK_SECONDS)
        return pending

    def attach(self, wanted: GetExecution) -> Pending:
        """See `Port.attach`."""
        pending = Pending(wanted)
        self._listen()
        self._poller.add(pending, 0.0, FIRST_UNTOLD_SECONDS)
        return pending

    def close(self) -> None:
        """Disconnect. Every wait fails with `BrokerUnavailable`; the executions themselves go on."""
        self._closed = True
        self._publisher.close()
        if self._wakeups is not None:
            self._wakeups.close()
        self._poller.close(lambda: BrokerUnavailable("the client is closed; the execution goes on"))
        self._replies.close()

    def _listen(self) -> None:
        """Subscribe to notifications before the first look-up, so that no end between the two is missed."""
        if self._wakeups is not None:
            self._wakeups.start()

    def _send(self, command: Command, who: Expecting, deadline: float, traceparent: str | None = None) -> Future[None]:
        if self._closed:
            raise BrokerUnavailable("the client is closed: make a new one")
        envelope = wrap(command, source=self._source, traceparent=traceparent, tenant=self._tenant)
        body = envelope.encode()
        queue = self._replies.expect(envelope.id, who, deadline)
        if isinstance(who, Pending):
            who.reply_queue = queue
        return self._publisher.submit(
            command_publication(envelope, body, reply_to=queue),
            timeout=max(0.0, deadline - time.monotonic()),
        )

    def _heard(self, execution_id: UUID) -> None:
        self._poller.wake(execution_id, unless=self._told)

    def _told(self, pending: Pending) -> bool:
        """Whether the answer can still come: its reply queue is the current one."""
        return pending.reply_queue is not None and pending.reply_queue == self._replies.queue

    def _longest(self, pending: Pending) -> float:
        return LONGEST_SECONDS if self._told(pending) else LONGEST_UNTOLD_SECONDS

    def _look_up(self, some: Sequence[Pending]) -> None:
        deadline = time.monotonic() + LOOK_UP_SECONDS
        asked: list[tuple[Pending, _Request]] = []
        for pending in some:
            request = _Request()
            try:
                self._send(pending.wanted, request, deadline)
            except PublishError:
                break  # the broker is away: the others are looked up later
            asked.append((pending, request))
        for pending, request in asked:
            reply = request.wait(deadline)
            if reply is not None:
                self._found(pending, reply, deadline)

    def _found(self, pending: Pending, reply: Reply, deadline: float) -> None:
        if reply.error is None:
            pending.seen(ExecutionView.model_validate(reply.answer, extra="ignore"))
        elif reply.error.code == Denied.code:
            pending.fail(refused(reply))
        elif reply.error.code == NotFound.code and pending.command is not None and not self._told(pending):
            # No worker has taken the command, or the answer with its refusal was lost. Sending it again is harmless.
            with suppress(PublishError):
                self._send(pending.command, pending, deadline, pending.traceparent)


class _Request:
    """An answer to wait for."""

    def __init__(self) -> None:
        self._reply: Future[Reply] = Future()

    def take(self, reply: Reply) -> None:
        with suppress(InvalidStateError):
            self._reply.set_result(reply)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self._reply.set_exception(error)

    def wait(self, deadline: float) -> Reply | None:
        """The answer; None if there is none by the deadline."""
        try:
            return self._reply.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            return None
