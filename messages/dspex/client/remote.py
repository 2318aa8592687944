"""The interface over the broker: a command goes to the exchange, its answer comes to a reply queue of this client.

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

if TYPE_CHECKING:
    from dspex.amqp.replies import Expecting

__all__ = ["MAX_ANSWER_BYTES", "Handle", "RemoteClient", "as_completed"]

View = TypeVar("View", bound=BaseModel)

LOOK_SECONDS = 5.0
"""An execution whose answer does not come is looked up after this time: the answer may have been lost."""
LOOK_UP_SECONDS = 5.0
"""What a look at some executions may take."""
LONGEST_SECONDS = 60.0
"""Between two looks at an execution whose answer is still expected."""
LONGEST_UNTOLD_SECONDS = 10.0
"""Between two looks at one whose answer goes nowhere: it was started elsewhere, or the reply queue has been lost."""
FIRST_UNTOLD_SECONDS = 0.25


class RemoteClient(Interface):
    """Thread-safe; connects at the first call, and again when the broker comes back.

    A command is published with a reply queue of this client's, where its answer comes. When that is lost with the
    connection there is a new one, and the executions that are waited for are looked up until they have ended.

    Args:
        url: `amqp://user:password@host:5672/vhost`.
        source: who asks, a URI reference such as `/orders` (CloudEvents `source`).
        timeout: seconds to wait for an answer, where a call does not say.
        validate: check inputs against the program's signature before they are published. Costs two requests, once for
            each program.
        redis_url: `redis://host:6379/0`, the workers' `DSPEX_REDIS_URL`: an execution that this client has not started
            itself is looked up as soon as it has ended, and not only from time to time. Needs `dspex[redis]`.
        ssl_context: for `amqps://`; by default the system's authorities are trusted.

    Raises:
        SettingsError: a URL cannot be read, or redis is not installed.
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
    ) -> None:
        # pika: whoever only reads messages does not load it
        from dspex.amqp.publisher import AmqpPublisher
        from dspex.amqp.url import amqp_parameters

        self.timeout = timeout
        self.validate = validate
        name = f"dspex client {source}"
        self._parameters = amqp_parameters(url, name, ssl_context)
        self._source = source
        self._redis_url = redis_url
        self._publisher = AmqpPublisher(url, timeout=timeout, ssl_context=ssl_context, name=name, patient=True)
        self._closed = False
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        """Make the parts that have threads; these start when they are needed."""
        from dspex.amqp.replies import Replies

        self._poller = Poller(self._look_up, self._longest)
        self._replies = Replies(self._parameters, lambda: self._poller.wake_all(FIRST_UNTOLD_SECONDS))
        self._wakeups = None
        if self._redis_url is not None:
            self._wakeups = Wakeups(self._redis_url, self._heard, lambda: self._poller.wake_all(LOOK_SECONDS))
        vars(self).pop("_signatures", None)  # a thread may be asking for a signature

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
        return answer.model_validate(reply.answer, extra="ignore")  # what a later version added

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
        """Disconnect; what is waited for fails with `BrokerUnavailable`, and goes on."""
        self._closed = True
        self._publisher.close()
        if self._wakeups is not None:
            self._wakeups.close()
        self._poller.close(lambda: BrokerUnavailable("the client is closed; the execution goes on"))
        self._replies.close()

    def _listen(self) -> None:
        """Hear of what ends, before the first look at it: what ends later is heard of."""
        if self._wakeups is not None:
            self._wakeups.start()

    def _send(self, command: Command, who: Expecting, deadline: float, traceparent: str | None = None) -> Future[None]:
        if self._closed:
            raise BrokerUnavailable("the client is closed: make a new one")
        envelope = wrap(command, source=self._source, traceparent=traceparent)
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
        """Whether its answer can still come."""
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
                break  # the broker is away: the others are due again, too
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
            # No worker has taken it, or one has refused it and the answer was lost: to send it again is harmless.
            with suppress(PublishError):
                self._send(pending.command, pending, deadline, pending.traceparent)


class _Request:
    """An answer that is waited for."""

    def __init__(self) -> None:
        self._reply: Future[Reply] = Future()

    def take(self, reply: Reply) -> None:
        with suppress(InvalidStateError):
            self._reply.set_result(reply)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self._reply.set_exception(error)

    def wait(self, deadline: float) -> Reply | None:
        """The answer, or None where there is none by the deadline."""
        try:
            return self._reply.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            return None
