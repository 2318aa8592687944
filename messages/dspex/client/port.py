"""The port under the verbs of the client, and the promises of every implementation.

`tests/contract/test_interface.py` and `test_handles.py` check them for each:

- **`ask`** has a command carried out and returns its answer, or raises. The code of the error says why.
- **`start`** publishes an execution, and waits only if the publisher has no room. `Pending.published` is done when the
  broker has stored the command. From then on the execution ends, whatever dies.
- **A `Pending` completes once**, with the view of the execution or with an error. It completes even if the answer, the
  reply queue or a notification is lost, as the execution is looked up until it has ended.
- **A `Pending` that nobody holds is forgotten**: its execution goes on, but is not looked up any more.
- **Thread-safe.** The futures of a `Pending` complete in threads of the implementation: a callback must be short.
"""

from __future__ import annotations

import abc
from types import TracebackType
from typing import Self, TypeVar

from pydantic import BaseModel

from dspex.blobs import BlobStore
from dspex.blobs.values import THRESHOLD_BYTES
from dspex.client.deadline import left, within
from dspex.client.pending import Pending
from dspex.contract.commands import Command, ExecuteProgram
from dspex.contract.queries import GetExecution
from dspex.ids import DEFAULT_TENANT

View = TypeVar("View", bound=BaseModel)

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for an answer by default."""


class Port(abc.ABC):
    """Carries commands out. Its promises are at the top of this module.

    Attributes:
        timeout: seconds to wait for an answer, unless a call gives its own.
        validate: whether inputs are checked against the program's signature before they are published.
        tenant: whose blobs it stores and reads.
        blobs: the blob store; None: it has none.
        blob_threshold: from how many bytes on an input goes to the blob store, if there is one.
    """

    timeout: float = DEFAULT_TIMEOUT
    validate: bool = True
    tenant: str = DEFAULT_TENANT
    blobs: BlobStore | None = None
    blob_threshold: int = THRESHOLD_BYTES

    @abc.abstractmethod
    def ask(self, command: Command, answer: type[View], *, timeout: float, traceparent: str | None = None) -> View:
        """Have a command other than `ExecuteProgram` carried out. Arguments and errors as in `call`."""

    @abc.abstractmethod
    def start(
        self, command: ExecuteProgram, *, timeout: float | None = None, traceparent: str | None = None
    ) -> Pending:
        """Publish an execution, without waiting for it.

        Args:
            timeout: seconds that the broker has to store the command.
            traceparent: W3C Trace Context of the caller's span; copied to the execution's events.

        Raises:
            MessageTooLarge, InvalidMessage: the command is too large or invalid.
            BrokerUnavailable: the publisher had no room or no connection until the timeout. Nothing was sent.
            Denied: the principal may not do this.
        """

    @abc.abstractmethod
    def attach(self, wanted: GetExecution) -> Pending:
        """Wait for an execution that was started before, here or elsewhere."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release connections and threads; every wait fails. May be called again."""

    def call(
        self,
        command: Command,
        answer: type[View],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
    ) -> View:
        """Have a command carried out, and return its answer. For an execution, wait for its end and return its view.

        Args:
            timeout: seconds in all, for publishing the command and for the answer.
            traceparent: W3C Trace Context of the caller's span.

        Raises:
            NoAnswer: no answer came in time.
            PublishError: the command is not known to be stored.
            DspexError: the command was refused; the code says why.
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
