"""What the verbs of the interface are written on, and what every implementation of it promises.

`tests/contract/test_interface.py` and `test_handles.py` check it of each:

- **`ask`** has a command carried out and returns its answer, or raises: what is refused says why by its code.
- **`start`** publishes an execution and waits for nothing but room to do so. `Pending.published` is done when the
  broker has stored the command; from then on the execution ends, whatever dies.
- **A pending execution ends once**, with its view or with an error; nothing that is lost on the way (an answer, a
  reply queue, a notification) keeps it from that: the execution is looked up until it has ended.
- **What nobody holds is forgotten**: a `Pending` that is dropped is not looked up any more; the execution goes on.
- **Thread-safe.** The futures of a `Pending` complete in threads of the implementation: a callback must be short.
"""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel

from dspex.client.deadline import left, within
from dspex.client.pending import Pending
from dspex.contract.commands import Command, ExecuteProgram
from dspex.contract.queries import GetExecution

View = TypeVar("View", bound=BaseModel)

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for an answer."""


class Port(abc.ABC):
    """Has commands carried out. The promises are at the top of this module.

    Attributes:
        timeout: seconds to wait for an answer, where a call does not say.
        validate: whether inputs are checked against the program's signature before they are published.
    """

    timeout: float = DEFAULT_TIMEOUT
    validate: bool = True

    @abc.abstractmethod
    def ask(self, command: Command, answer: type[View], *, timeout: float, traceparent: str | None = None) -> View:
        """Have a command other than `ExecuteProgram` carried out. Arguments and errors as in `call`."""

    @abc.abstractmethod
    def start(
        self, command: ExecuteProgram, *, timeout: float | None = None, traceparent: str | None = None
    ) -> Pending:
        """Publish an execution, and do not wait for it.

        Args:
            timeout: seconds that the broker has to store the command.
            traceparent: W3C Trace Context of the caller's span; the events of the execution have it, too.

        Raises:
            MessageTooLarge, InvalidMessage: of the command.
            BrokerUnavailable: there was no room to publish, or no connection, until the timeout. Nothing was sent.
            Denied: the principal may not do this.
        """

    @abc.abstractmethod
    def attach(self, wanted: GetExecution) -> Pending:
        """Wait for an execution that was started before, here or elsewhere."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free what it holds; what is waited for fails. Safe to call twice."""

    def call(
        self,
        command: Command,
        answer: type[View],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
    ) -> View:
        """Have a command carried out, and return its answer; that of an execution is how it ended.

        Args:
            timeout: seconds for all of it: to publish the command, and to wait for the answer.
            traceparent: W3C Trace Context of the caller's span.

        Raises:
            NoAnswer: none came in time.
            PublishError: the command is not known to be stored.
            DspexError: it was refused; the code says why.
        """
        timeout = left(self.timeout if timeout is None else timeout)
        if isinstance(command, ExecuteProgram):
            with within(timeout):
                pending = self.start(command, timeout=timeout, traceparent=traceparent)
                return answer.model_validate(pending.wait(left(timeout)).model_dump())
        return self.ask(command, answer, timeout=timeout, traceparent=traceparent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
