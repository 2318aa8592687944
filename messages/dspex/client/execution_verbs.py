"""The verbs of executions: submit and wait, one or many; look, cancel, list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pydantic

from dspex.cached import cached
from dspex.client.arguments import arguments_checked
from dspex.client.completion import as_done, as_stored, in_order
from dspex.client.deadline import within
from dspex.client.handles import Handle
from dspex.client.pending import Pending
from dspex.client.port import Port
from dspex.client.signature_cache import SignatureCache
from dspex.contract.callback import Callback
from dspex.contract.commands import CancelExecution, ExecuteProgram
from dspex.contract.options import ExecutionOptions
from dspex.contract.queries import GetExecution, GetProgram, GetSignature, ListExecutions
from dspex.contract.results import ExecutionView, Page, ProgramView, SignatureView
from dspex.errors import InvalidInput, MessageError, NoAnswer, Problem
from dspex.ids import uuid7
from dspex.model import problems
from dspex.signatures.signature import Signature

IN_FLIGHT = 256


@arguments_checked
class ExecutionVerbs(Port):
    """What may be done with executions."""

    def submit_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> Handle:
        """Have a program run, and do not wait for it; returns once the broker has stored the command.

        With the id or the idempotency key of an execution that is there already, nothing runs twice: the handle is its.

        Args:
            options: seed, earliest start, deadline.
            execution_id: a new one by default. Choose it to be able to submit again what is not known to be stored.
            idempotency_key: of the tenant; the first execution with it stands for all.
            callback: where its end is pushed to, instead of where its program says.
            metadata: short strings that are kept with it, and are in its view, its event and its webhook.
            traceparent: W3C Trace Context of the caller's span; the events and webhooks of the execution have it, too.
            validate: check the inputs against the signature first; by default as the client is made.
            timeout: seconds for all of it: to ask for the signature, and to have the command stored.

        Raises:
            InvalidInput: the inputs do not fit the signature; every wrong field is named, nothing was sent.
            MessageTooLarge, InvalidMessage: of the command; nothing was sent.
            PublishError: it is not known to be stored. Submit it again with the same id or key.
            RequestFailed: there is no such program, or its signature may not be read.
            NoAnswer: no worker told its signature; nothing was sent.
        """
        handle = self.start_program(
            program_id,
            inputs,
            options=options,
            execution_id=execution_id,
            idempotency_key=idempotency_key,
            callback=callback,
            metadata=metadata,
            traceparent=traceparent,
            validate=validate,
            timeout=timeout,
        )
        handle.pending.published.result()
        return handle

    def start_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> Handle:
        """As `submit_program`, and do not wait for the broker either: many commands can be on their way.

        Inputs that do not fit, and a command that is not stored, are errors that waiting for the handle raises.

        Raises:
            BrokerUnavailable: there was no room to publish, or no connection, until the timeout; nothing was sent.
            RequestFailed: there is no such program, or its signature may not be read.
            NoAnswer: no worker told its signature; nothing was sent.
        """
        try:
            with within(self.timeout if timeout is None else timeout):
                command = self._command(
                    program_id, inputs, options, execution_id, idempotency_key, callback, metadata, validate
                )
                pending = self.start(command, timeout=timeout, traceparent=traceparent)
        except (InvalidInput, MessageError) as error:
            pending = Pending.unsent(execution_id or uuid7(), error)
        return Handle(self, pending, _mapping(inputs))

    def execute_program(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        *,
        options: ExecutionOptions | None = None,
        execution_id: UUID | None = None,
        idempotency_key: str | None = None,
        callback: Callback | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> ExecutionView:
        """Run a program, and wait until the execution has ended. A failed one is returned, not raised.

        Arguments and errors are those of `submit_program` and of `Handle.execution`; by default `timeout` is the
        client's, and is for all of it.
        """
        with within(self.timeout if timeout is None else timeout):
            command = self._command(
                program_id, inputs, options, execution_id, idempotency_key, callback, metadata, validate
            )
            return self.call(command, ExecutionView, timeout=timeout, traceparent=traceparent)

    def handle(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> Handle:
        """Attach to an execution by its id or its idempotency key, whoever has started it."""
        return Handle(self, self.attach(GetExecution(execution_id=execution_id, idempotency_key=idempotency_key)))

    def map(
        self,
        program_id: UUID,
        rows: Iterable[Mapping[str, Any]],
        *,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
        options: ExecutionOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        validate: bool | None = None,
        timeout: float | None = None,
    ) -> Iterator[Handle]:
        """Run a program on many rows: a handle of each, when it is done.

        What goes wrong with a row is raised by its handle's `result`, and the others go on. Where the next row cannot
        be had or sent, what was started is given out first, and the error is raised then.

        Args:
            rows: inputs; taken only as fast as executions end, so they may be more than fit into memory.
            in_flight: how many executions there may be at a time that are not given out yet.
            ordered: in the order of the rows; else each when it is done.
            options, metadata, traceparent, validate, timeout: as in `submit_program`, for every row. While the broker
                has no room (a queue is full, its memory is) rows are taken as slowly as it stores them.
        """
        if in_flight < 1:
            raise ValueError("in_flight must be at least 1")

        def start(row: Mapping[str, Any]) -> Handle:
            return self.start_program(
                program_id,
                row,
                options=options,
                metadata=metadata,
                traceparent=traceparent,
                validate=validate,
                timeout=timeout,
            )

        started = as_stored(map(start, rows))
        return in_order(started, in_flight) if ordered else as_done(started, in_flight)

    def cancel_execution(self, execution_id: UUID, *, traceparent: str | None = None) -> ExecutionView:
        """Cancel an execution: a pending one at once, a running one as soon as its adapter can stop."""
        return self.call(CancelExecution(execution_id=execution_id), ExecutionView, traceparent=traceparent)

    def get_execution(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> ExecutionView:
        """One execution, by its id or by its idempotency key."""
        query = GetExecution(execution_id=execution_id, idempotency_key=idempotency_key)
        return self.call(query, ExecutionView)

    def list_executions(self, /, **filters: Any) -> Page[ExecutionView]:
        """A page of executions; the filters are the fields of `dspex.contract.queries.ListExecutions`."""
        return self.call(ListExecutions(**filters), Page[ExecutionView])

    def recent_executions(self, limit: int = 50) -> tuple[ExecutionView, ...]:
        """The newest executions."""
        return self.list_executions(limit=limit).items

    def signature_of(self, program_id: UUID) -> Signature:
        """The signature of a program. Asked for once, then known: that of a program that can run does not change."""
        with within(self.timeout):
            return self._signatures.of(program_id)

    def output_model(self, program_id: UUID) -> type[pydantic.BaseModel]:
        """A pydantic model of a program's outputs, for `Handle.result(result_type=...)`."""
        return self.signature_of(program_id).output_model

    @cached
    def _signatures(self) -> SignatureCache:
        def fetch(program_id: UUID) -> SignatureView:
            program = self.call(GetProgram(program_id=program_id), ProgramView)
            return self.call(GetSignature(signature_id=program.signature_id), SignatureView)

        return SignatureCache(fetch)

    def _signature_to_check_by(self, program_id: UUID) -> Signature:
        try:
            return self.signature_of(program_id)
        except NoAnswer as error:
            advice = "Nothing was sent: the signature to check the inputs by is a worker's; without, validate=False"
            raise NoAnswer(f"{error.message} {advice}") from None

    def _command(
        self,
        program_id: UUID,
        inputs: Mapping[str, Any],
        options: ExecutionOptions | None,
        execution_id: UUID | None,
        idempotency_key: str | None,
        callback: Callback | None,
        metadata: Mapping[str, str] | None,
        validate: bool | None,
    ) -> ExecuteProgram:
        if _mapping(inputs) is None:
            reason = f"must be a mapping of names to values, not {type(inputs).__name__}"
            raise InvalidInput([Problem("inputs", reason)])
        if self.validate if validate is None else validate:
            self._signature_to_check_by(program_id).validate_inputs(inputs)
        try:
            return ExecuteProgram(
                execution_id=execution_id or uuid7(),
                program_id=program_id,
                inputs=dict(inputs),
                options=options or ExecutionOptions(),
                idempotency_key=idempotency_key,
                callback=callback,
                metadata=metadata or None,  # type: ignore[arg-type]  # a mapping, which the model reads or refuses
            )
        except pydantic.ValidationError as error:
            raise InvalidInput(problems(error)) from None


def _mapping(value: object) -> Mapping[str, Any] | None:
    """What callers give as inputs, where it is what the types say."""
    return value if isinstance(value, Mapping) else None
