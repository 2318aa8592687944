"""What a caller holds of an execution: its id, its state, and its result when it is there."""

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
    """What a handle asks its client for: verbs of `dspex.client.execution_verbs`."""

    def get_execution(
        self, execution_id: UUID | None = None, *, idempotency_key: str | None = None
    ) -> ExecutionView: ...

    def cancel_execution(self, execution_id: UUID, *, traceparent: str | None = None) -> ExecutionView: ...


class Handle:
    """An execution that was submitted, or attached to by its id. Thread-safe.

    Whoever keeps the id can let go of the handle, or die, and get another by `client.handle(execution_id)`.
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

        With an idempotency key whose execution was there before, it is that one's, as soon as that is known.

        Raises:
            NotFound: only the key is known, and no execution of it was seen yet.
        """
        known = self.pending.execution_id
        if known is None:
            raise NotFound(f"idempotency_key: no execution of '{self.pending.wanted.idempotency_key}' was seen yet")
        return known

    @property
    def inputs(self) -> dict[str, Any]:
        """What it runs on. Asks, where it was attached to and has not ended."""
        return dict(self._view().inputs if self._inputs is None else self._inputs)

    def done(self) -> bool:
        """Whether its result is here, or the reason why there is none. Does not ask."""
        return self.pending.ended.done()

    def status(self) -> ExecutionStatus:
        """Its status now. Asks, unless it is done.

        Raises:
            RequestFailed, NotFound: there is no such execution, where it was attached to; or it was refused.
        """
        try:
            return self._view().status
        except DspexError as error:
            # It is published, and no worker has taken it yet: there is no row of it.
            if error.code == NotFound.code and self.pending.command is not None and not self.done():
                return ExecutionStatus.PENDING
            raise

    def execution(self, timeout: float | None = None) -> ExecutionView:
        """The execution, once it has ended. A failed one is returned, not raised.

        Args:
            timeout: seconds to wait; None: without end.

        Raises:
            NoAnswer: it has not ended in time; it goes on.
            RequestFailed: it was refused; the code says why.
            PublishError: its command is not known to be stored. Submit it again with the same id; where `timeout` is
                over, it can also be waited for again.
        """
        return self.pending.wait(timeout)

    @overload
    def result(self, timeout: float | None = None) -> dict[str, Any]: ...
    @overload
    def result(self, timeout: float | None = None, *, result_type: type[Model]) -> Model: ...
    def result(self, timeout: float | None = None, *, result_type: type[Model] | None = None) -> dict[str, Any] | Model:
        """Its outputs, once it has ended.

        Args:
            timeout: seconds to wait; None: without end.
            result_type: a pydantic model to have them as: your own, or `client.output_model(program_id)`.

        Raises:
            ExecutionError: it failed or was cancelled; `code` says why, `execution` is all that is known.
            InvalidOutput: they do not fit `result_type`; each wrong field is named.
            NoAnswer, RequestFailed, PublishError: as `execution`.
        """
        return result_of(self.execution(timeout), result_type)

    def cancel(self, *, traceparent: str | None = None) -> ExecutionView:
        """Cancel it: at once while it is pending, as soon as its adapter can stop while it runs.

        Raises:
            RequestFailed, IllegalTransition, NotFound: it has ended, or no worker has taken it yet.
        """
        return self._client.cancel_execution(self.execution_id, traceparent=traceparent)

    def add_done_callback(self, callback: Callable[[Handle], None]) -> None:
        """Have `callback(handle)` called when it is done, or now if it is. In another thread: it must be short."""
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
    """The outputs of an execution that has ended. Errors as `Handle.result`."""
    if view.status != ExecutionStatus.COMPLETED or view.outputs is None:
        raise ExecutionError(view)
    if result_type is None:
        return view.outputs
    try:
        return result_type.model_validate(view.outputs)
    except pydantic.ValidationError as error:
        raise InvalidOutput(problems(error)) from None
