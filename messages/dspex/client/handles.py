"""The handle of an execution: its id, its state, and its result once there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, overload
from uuid import UUID

import pydantic

from dspex.client.pending import Pending
from dspex.contract.results import ExecutionError, ExecutionView
from dspex.contract.status import ExecutionStatus
from dspex.errors import DspexError, InvalidOutput, NotFound
from dspex.model import problems

Model = TypeVar("Model", bound=pydantic.BaseModel)


class Asks(Protocol):
    """The verbs of `dspex.client.execution_verbs` that a handle needs."""

    def get_execution(
        self, execution_id: UUID | None = None, *, idempotency_key: str | None = None
    ) -> ExecutionView: ...

    def cancel_execution(self, execution_id: UUID, *, traceparent: str | None = None) -> ExecutionView: ...

    def whole(self, execution: ExecutionView, *, inputs: bool = True) -> ExecutionView: ...


class Handle:
    """An execution that was submitted, or attached to by its id. Thread-safe.

    The id is enough: `client.handle(execution_id)` makes another handle, in another process, too.
    """

    def __init__(self, client: Asks, pending: Pending, inputs: Mapping[str, Any] | None = None) -> None:
        self._client = client
        self._inputs = inputs
        self.pending = pending

    def __repr__(self) -> str:
        return f"<Handle of execution {self.pending.execution_id}, {'done' if self.done() else 'not done'}>"

    @property
    def execution_id(self) -> UUID:
        """The id of the execution.

        If the idempotency key belongs to an earlier execution, it is the id of that one, as soon as it is known.

        Raises:
            NotFound: only the idempotency key is known, and no execution with it was found yet.
        """
        known = self.pending.execution_id
        if known is None:
            raise NotFound(f"idempotency_key: no execution of '{self.pending.wanted.idempotency_key}' was seen yet")
        return known

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs. Sends a query if the execution was attached to and has not ended."""
        return dict(self._view().inputs if self._inputs is None else self._inputs)

    def done(self) -> bool:
        """Whether this handle has the result or an error. Sends no query."""
        return self.pending.ended.done()

    def status(self) -> ExecutionStatus:
        """The current status. Sends a query unless the handle is done.

        Raises:
            RequestFailed, NotFound: there is no such execution to attach to, or the execution was refused.
        """
        try:
            return self._view().status
        except DspexError as error:
            # The command is published, but no worker has taken it yet: there is no row.
            if error.code == NotFound.code and self.pending.command is not None and not self.done():
                return ExecutionStatus.PENDING
            raise

    def execution(self, timeout: float | None = None) -> ExecutionView:
        """Wait for the execution to end, and return it. A failed one is returned, not raised.

        Args:
            timeout: seconds to wait; None: without end.

        Raises:
            NoAnswer: the execution has not ended in time; it goes on.
            RequestFailed: the execution was refused; the code says why.
            PublishError: the command is not known to be stored. Submit it again with the same id; after a timeout you
                can also wait again.
        """
        return self.pending.wait(timeout)

    @overload
    def result(self, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    def result(self, timeout: float | None = None, *, result_type: type[Model]) -> Model: ...
    def result(self, timeout: float | None = None, *, result_type: type[Model] | None = None) -> dict[str, Any] | Model:
        """Wait for the execution to end, and return its outputs.

        Args:
            timeout: seconds to wait; None: without end.
            result_type: return the outputs as this pydantic model: your own, or `client.output_model(program_id)`.

        Raises:
            ExecutionError: the execution failed or was cancelled; `code` says why, `execution` is its view.
            InvalidOutput: the outputs do not fit `result_type`; it names each wrong field.
            BlobsUnavailable: outputs are in the blob store, which cannot be reached, or the client has none.
            NoAnswer, RequestFailed, PublishError: see `execution`.
        """
        return result_of(self._client.whole(self.execution(timeout), inputs=False), result_type)

    def cancel(self, *, traceparent: str | None = None) -> ExecutionView:
        """Cancel the execution: a pending one at once, a running one as soon as its adapter can stop.

        Raises:
            RequestFailed, IllegalTransition, NotFound: the execution has ended, or no worker has taken it yet.
        """
        return self._client.cancel_execution(self.execution_id, traceparent=traceparent)

    def add_done_callback(self, callback: Callable[[Handle], None]) -> None:
        """Call `callback(handle)` once the handle is done, in any thread. The callback must be short."""
        self.pending.ended.add_done_callback(lambda _: callback(self))

    def _view(self) -> ExecutionView:
        if self.done():
            return self.pending.wait(0)
        wanted = self.pending.wanted
        view = self._client.get_execution(wanted.execution_id, idempotency_key=wanted.idempotency_key)
        self.pending.seen(view)
        return self.pending.wait(0) if self.done() else view


@overload
def result_of(view: ExecutionView, result_type: None = None) -> dict[str, Any]: ...
@overload
def result_of(view: ExecutionView, result_type: type[Model] | None) -> dict[str, Any] | Model: ...
def result_of(view: ExecutionView, result_type: type[Model] | None = None) -> dict[str, Any] | Model:
    """The outputs of an execution that has ended. Raises the errors of `Handle.result`."""
    if view.status != ExecutionStatus.COMPLETED or view.outputs is None:
        raise ExecutionError(view)
    if result_type is None:
        return view.outputs
    try:
        return result_type.model_validate(view.outputs)
    except pydantic.ValidationError as error:
        raise InvalidOutput(problems(error)) from None
