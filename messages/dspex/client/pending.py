"""An execution to wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any
from uuid import UUID

from dspex.contract.commands import ExecuteProgram
from dspex.contract.events import Reply
from dspex.contract.queries import GetExecution
from dspex.contract.results import ExecutionView
from dspex.errors import BrokerUnavailable, Conflict, DspexError, NoAnswer, Problem, PublishError, RequestFailed

Trouble = Callable[[], tuple[type[PublishError], str]]


def _unknown() -> tuple[type[PublishError], str]:
    return BrokerUnavailable, "no confirm yet"


class Pending:
    """An execution that was started or attached to, and the future of its end.

    Attributes:
        wanted: the query that looks it up.
        command: the command that started it; None if it was started elsewhere.
        traceparent: the W3C Trace Context that came with the command.
        reply_queue: the queue for its answer; None if no answer will come.
        published: done when the broker has stored the command. If it fails, `ended` fails, too.
        ended: done when the execution has ended; fails if it could not be started.
    """

    def __init__(
        self, wanted: GetExecution, command: ExecuteProgram | None = None, traceparent: str | None = None
    ) -> None:
        self.wanted = wanted
        self.command = command
        self.traceparent = traceparent
        self.reply_queue: str | None = None
        self.published: Future[None] = Future()
        self.ended: Future[ExecutionView] = Future()
        self.ended.set_running_or_notify_cancel()  # it has many waiters: none may cancel it for the others
        self._known_id: UUID | None = wanted.execution_id
        self._why_not: Trouble = _unknown
        if command is None:
            self.published.set_result(None)

    @classmethod
    def of(cls, command: ExecuteProgram, traceparent: str | None = None) -> Pending:
        """The execution that a command starts. With an idempotency key, its id may be that of an earlier command."""
        key = command.idempotency_key
        wanted = GetExecution(execution_id=None if key else command.execution_id, idempotency_key=key)
        return cls(wanted, command, traceparent)

    @classmethod
    def unsent(cls, execution_id: UUID, error: DspexError) -> Pending:
        """An execution whose command could not be sent."""
        pending = cls(GetExecution(execution_id=execution_id))
        pending.published = Future()
        pending.published.set_exception(error)
        pending.fail(error)
        return pending

    @property
    def execution_id(self) -> UUID | None:
        """The id of the execution. Until it is confirmed, the id of the command; None if only the key is known."""
        return self._known_id or (self.command.execution_id if self.command else None)

    def sent(self, published: Future[None], why_not: Trouble = _unknown) -> None:
        """Note that the publisher has the command.

        Args:
            why_not: returns why the command is not stored yet: an error class, and one line for people.
        """
        self.published = published
        self._why_not = why_not
        published.add_done_callback(self._stored)

    def _stored(self, published: Future[None]) -> None:
        error = published.exception()
        if error is not None:
            self.fail(error)

    def take(self, reply: Reply) -> None:
        """Take the answer to the command."""
        if reply.error is not None:
            self.fail(refused(reply))
        else:
            self.seen(ExecutionView.model_validate(reply.answer, extra="ignore"))

    def seen(self, view: ExecutionView) -> None:
        """Take the current view of the execution. Fails if the execution belongs to another request."""
        if self.command is not None and _differ(self.command, view):
            taken = "execution_id" if self.command.idempotency_key is None else "idempotency_key"
            self.fail(
                RequestFailed(Conflict.code, f"{taken}: execution {view.execution_id} belongs to another request")
            )
            return
        self._known_id = view.execution_id
        if view.status.terminal:
            with suppress(InvalidStateError):  # the end is reported twice
                self.ended.set_result(view)

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        with suppress(InvalidStateError):
            self.ended.set_exception(error)

    def wait(self, timeout: float | None) -> ExecutionView:
        """Wait for the execution to end.

        Args:
            timeout: seconds to wait; None: no limit.

        Raises:
            NoAnswer: the execution has not ended in time; it goes on.
            PublishError: the execution has not ended in time, and its command is not known to be stored.
            DspexError: the execution could not be started; the code says why.
        """
        try:
            return self.ended.result(None if timeout is None else max(0.0, timeout))
        except FutureTimeout:
            raise self.late(timeout) from None

    def late(self, timeout: float | None) -> NoAnswer | PublishError:
        """The error for a wait that has timed out."""
        which = self.execution_id or f"of idempotency key '{self.wanted.idempotency_key}'"
        if not self.published.done() or self.published.exception() is not None:
            error, why_not = self._why_not()
            return error(
                f"execution {which}: its command is not known to be stored after {timeout or 0:.3g} s: "
                f"{why_not}; wait again, or submit it again under the same id"
            )
        if self.command is None:  # the execution may not exist
            advice = "is there one, and a worker running? It can be waited for again"
        else:
            advice = "is a worker running? It goes on, and can be waited for again"
        return NoAnswer(f"execution {which} has not ended in {timeout or 0:.3g} s; {advice}")


def _differ(command: ExecuteProgram, view: ExecutionView) -> bool:
    return view.program_id != command.program_id or not _same(command.inputs, view.inputs)


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal. A database may return a float such as 1e23 as an integer."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(_same, one, other))
        case (float(), int()) | (int(), float()):
            with suppress(OverflowError):
                return float(one) == float(other)
    return bool(one == other)


def refused(reply: Reply) -> RequestFailed:
    """The error in an answer."""
    error = reply.error
    if error is None:
        raise ValueError("the reply has an answer")
    return RequestFailed(error.code, error.message, [Problem(p.field, p.message) for p in error.problems])
