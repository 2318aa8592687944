"""An execution that somebody waits for."""

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
    """An execution that was started or is attached to, and the future of how it ends.

    Attributes:
        wanted: how it is looked up.
        command: what started it; None where it was started elsewhere.
        traceparent: of who started it.
        reply_queue: where its answer goes; None where no answer will come.
        published: done when the broker has stored the command. It fails as the publisher's futures do, and then
            `ended` does.
        ended: done when the execution has ended, or could not be started.
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
        self.ended.set_running_or_notify_cancel()  # many may wait for it: none of them can cancel it
        self._known_id: UUID | None = wanted.execution_id
        self._why_not: Trouble = _unknown
        if command is None:
            self.published.set_result(None)

    @classmethod
    def of(cls, command: ExecuteProgram, traceparent: str | None = None) -> Pending:
        """What a command starts. The first command with its idempotency key may have had another id."""
        key = command.idempotency_key
        wanted = GetExecution(execution_id=None if key else command.execution_id, idempotency_key=key)
        return cls(wanted, command, traceparent)

    @classmethod
    def unsent(cls, execution_id: UUID, error: DspexError) -> Pending:
        """What was not even sent."""
        pending = cls(GetExecution(execution_id=execution_id))
        pending.published = Future()
        pending.published.set_exception(error)
        pending.fail(error)
        return pending

    @property
    def execution_id(self) -> UUID | None:
        """Its id. With an idempotency key it is the command's until another is known; None: only the key is known."""
        return self._known_id or (self.command.execution_id if self.command else None)

    def sent(self, published: Future[None], why_not: Trouble = _unknown) -> None:
        """The command is with the publisher.

        Args:
            why_not: says why it is not stored, while it is not: the error, and a line for people.
        """
        self.published = published
        self._why_not = why_not
        published.add_done_callback(self._stored)

    def _stored(self, published: Future[None]) -> None:
        error = published.exception()
        if error is not None:
            self.fail(error)

    def take(self, reply: Reply) -> None:
        """The answer to its command."""
        if reply.error is not None:
            self.fail(refused(reply))
        else:
            self.seen(ExecutionView.model_validate(reply.answer, extra="ignore"))

    def seen(self, view: ExecutionView) -> None:
        """It was looked at: it may have ended. Another request's is none of ours, whoever tells of it first."""
        if self.command is not None and _differ(self.command, view):
            taken = "execution_id" if self.command.idempotency_key is None else "idempotency_key"
            self.fail(RequestFailed(Conflict.code, f"{taken}: execution {view.execution_id} is of another request"))
            return
        self._known_id = view.execution_id
        if view.status.terminal:
            with suppress(InvalidStateError):  # it was told twice
                self.ended.set_result(view)

    def fail(self, error: BaseException) -> None:
        """There is no execution, or it cannot be waited for."""
        with suppress(InvalidStateError):
            self.ended.set_exception(error)

    def wait(self, timeout: float | None) -> ExecutionView:
        """How it ended.

        Args:
            timeout: seconds to wait; None: without end.

        Raises:
            NoAnswer: it has not ended in time; it goes on.
            PublishError: it has not ended in time, and its command is not known to be stored.
            DspexError: it could not be started; the code says why.
        """
        try:
            return self.ended.result(None if timeout is None else max(0.0, timeout))
        except FutureTimeout:
            raise self.late(timeout) from None

    def late(self, timeout: float | None) -> NoAnswer | PublishError:
        """The error of who has waited long enough."""
        which = self.execution_id or f"of idempotency key '{self.wanted.idempotency_key}'"
        if not self.published.done() or self.published.exception() is not None:
            error, why_not = self._why_not()
            return error(
                f"execution {which}: its command is not known to be stored after {timeout or 0:.3g} s: "
                f"{why_not}; wait again, or submit it again under the same id"
            )
        if self.command is None:  # it may not be there at all
            advice = "is there one, and a worker running? It can be waited for again"
        else:
            advice = "is a worker running? It goes on, and can be waited for again"
        return NoAnswer(f"execution {which} has not ended in {timeout or 0:.3g} s; {advice}")


def _differ(command: ExecuteProgram, view: ExecutionView) -> bool:
    return view.program_id != command.program_id or not _same(command.inputs, view.inputs)


def _same(one: Any, other: Any) -> bool:
    """Whether two values of JSON types are one; 1e23 may come back from a database as the whole number."""
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
    """The error that a request was answered with."""
    error = reply.error
    if error is None:
        raise ValueError("the reply has an answer")
    return RequestFailed(error.code, error.message, [Problem(p.field, p.message) for p in error.problems])
