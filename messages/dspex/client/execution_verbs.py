"""The verbs of executions: submit and wait, one or many; get, cancel, list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import pydantic

from dspex.blobs.values import BLOBS, offloaded, placed
from dspex.cached import cached
from dspex.client.arguments import arguments_checked
from dspex.client.blob_verbs import BlobVerbs
from dspex.client.completion import as_done, as_stored, in_order
from dspex.client.deadline import within
from dspex.client.handles import Handle
from dspex.client.pending import Pending
from dspex.client.signature_cache import RENEW_SECONDS, SignatureCache
from dspex.contract.callback import Callback
from dspex.contract.commands import CancelExecution, ExecuteProgram
from dspex.contract.options import ExecutionOptions
from dspex.contract.queries import (
    CountExecutions,
    ExecutionCounts,
    GetExecution,
    GetExecutionTrace,
    GetProgram,
    GetSignature,
    ListExecutions,
)
from dspex.contract.results import Affected, ExecutionView, Page, ProgramView, SignatureView
from dspex.contract.selections import CancelExecutions
from dspex.contract.trace import ExecutionTrace
from dspex.errors import InvalidInput, MessageError, NoAnswer, Problem, PublishError
from dspex.ids import uuid7
from dspex.model import problems
from dspex.signatures.dspy_values import plain_values
from dspex.signatures.signature import Signature

IN_FLIGHT = 256


@arguments_checked
class ExecutionVerbs(BlobVerbs):
    """The part of the client for executions."""

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
        """Submit an execution of a program. Returns once the broker has stored the command.

        If an execution with the same id or idempotency key exists, nothing runs twice: the handle is for that one.

        Args:
            options: the seed, the earliest start and the deadline, and whether to keep a trace.
            execution_id: a new one by default. Choose it yourself if you want to submit again after a `PublishError`.
            idempotency_key: unique within the tenant. All submissions with one key are the same execution.
            callback: the webhook for its end; takes precedence over the program's callback.
            metadata: short strings that are stored with the execution, and shown in its view, event and webhook.
            traceparent: W3C Trace Context of the caller's span; copied to the execution's events and webhooks.
            validate: check the inputs against the signature first; by default as set for the client.
            timeout: seconds in all, for getting the signature and for having the command stored.

        Raises:
            InvalidInput: the inputs do not fit the signature. It names every wrong field; nothing was sent.
            MessageTooLarge, InvalidMessage: the command is too large or invalid; nothing was sent.
            PublishError: the command is not known to be stored. Submit it again with the same id or key.
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
        """Like `submit_program`, but does not wait until the command is stored, so many can be in flight.

        If the inputs do not fit, or the command is not stored, the handle raises the error when you wait for it.

        Raises:
            BrokerUnavailable: the publisher had no room or no connection until the timeout; nothing was sent.
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

        Arguments and errors are those of `submit_program` and `Handle.execution`. `timeout` covers the whole call; by
        default it is the client's.
        """
        with within(self.timeout if timeout is None else timeout):
            command = self._command(
                program_id, inputs, options, execution_id, idempotency_key, callback, metadata, validate
            )
            view = self.call(command, ExecutionView, timeout=timeout, traceparent=traceparent)
            return self.whole(view, inputs=False)

    def handle(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> Handle:
        """Attach to an execution by its id or its idempotency key. Any process may have started it."""
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
        """Run a program on many rows. Yields a handle for each, when its execution is done.

        An error of one row is raised by its handle's `result`; the other rows go on. If the next row cannot be read or
        sent, the handles already started are yielded first, then the error is raised.

        Args:
            rows: inputs. They are read only as fast as executions end, so they need not fit into memory.
            in_flight: how many executions may be started ahead of the handles yielded.
            ordered: yield in the order of the rows; if False, as they complete.
            options, metadata, traceparent, validate, timeout: as in `submit_program`, for every row. While the broker
                has no room (a full queue, a memory alarm), rows are read only as fast as it stores them.
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

    def cancel_executions(
        self, /, execution_ids: Iterable[UUID] | None = None, *, traceparent: str | None = None, **filters: Any
    ) -> Affected:
        """Cancel many: those with these ids, or all that have not ended and match the filters; without either, all.

        The filters are the other fields of `dspex.contract.selections.CancelExecutions`. With `limit`, it ends after so
        many, and with `cursor=answer.next_cursor` it goes on; with `dry_run`, it only counts them.
        """
        ids = None if execution_ids is None else tuple(execution_ids)
        return self.call(CancelExecutions(execution_ids=ids, **filters), Affected, traceparent=traceparent)

    def get_execution(self, execution_id: UUID | None = None, *, idempotency_key: str | None = None) -> ExecutionView:
        """One execution, by its id or by its idempotency key."""
        query = GetExecution(execution_id=execution_id, idempotency_key=idempotency_key)
        return self.call(query, ExecutionView)

    def get_execution_trace(self, execution_id: UUID) -> ExecutionTrace:
        """The steps of an execution's last attempt: prompts, answers, tools.

        Raises:
            RequestFailed: `not_found`: there is no such execution, or it keeps no trace (`options.trace`).
        """
        return self.call(GetExecutionTrace(execution_id=execution_id), ExecutionTrace)

    def list_executions(self, /, **filters: Any) -> Page[ExecutionView]:
        """A page of executions; the filters are the fields of `dspex.contract.queries.ListExecutions`.

        With `metadata`, a page may have no items and still a `next_cursor`, as it looks through 20,000 executions.
        """
        return self.call(ListExecutions(**filters), Page[ExecutionView])

    def recent_executions(self, limit: int = 50) -> tuple[ExecutionView, ...]:
        """The newest executions."""
        return self.list_executions(limit=limit).items

    def count_executions(
        self,
        program_id: UUID | None = None,
        *,
        error_code: str | None = None,
        metadata: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> ExecutionCounts:
        """How many executions there are, by status: of a program, or of all; of the newest 100,000 at most.

        Args:
            error_code: those that failed with it, or wait for another attempt after it.
            metadata: those with all these values by name.
            since, until: they were inserted at or after the one, and before the other.
        """
        query = CountExecutions(
            program_id=program_id,
            error_code=error_code,
            metadata=metadata or None,  # type: ignore[arg-type]  # a mapping, which the model reads or refuses
            since=since,
            until=until,
        )
        return self.call(query, ExecutionCounts)

    def signature_of(self, program_id: UUID) -> Signature:
        """The signature of a program, as it was within the last 30 seconds."""
        with within(self.timeout):
            return self._signatures.of(program_id, max_age=RENEW_SECONDS)

    def output_model(self, program_id: UUID) -> type[pydantic.BaseModel]:
        """A pydantic model of a program's outputs, for `Handle.result(result_type=...)`."""
        return self.signature_of(program_id).output_model

    @cached
    def _signatures(self) -> SignatureCache:
        def fetch(program_id: UUID) -> SignatureView:
            program = self.call(GetProgram(program_id=program_id), ProgramView)
            return self.call(GetSignature(signature_id=program.signature_id), SignatureView)

        return SignatureCache(fetch)

    def _check(self, program_id: UUID, inputs: Mapping[str, Any]) -> None:
        """Check that inputs fit the program's signature."""
        with within(self.timeout):
            try:
                signature = self._signatures.of(program_id)
            except NoAnswer as error:
                advice = "Nothing was sent: to check the inputs, the signature is needed; validate=False skips this"
                raise NoAnswer(f"{error.message} {advice}") from None
            try:
                signature.validate_inputs(inputs)
            except InvalidInput:
                now = signature
                with suppress(NoAnswer, PublishError):  # then by what is known
                    now = self._signatures.of(program_id, max_age=RENEW_SECONDS)
                if now is signature:
                    raise
                now.validate_inputs(inputs)

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
        inputs = placed(plain_values(inputs))
        # What is in the blob store is checked by the worker, which reads it.
        if BLOBS not in inputs and (self.validate if validate is None else validate):
            self._check(program_id, inputs)
        if self.blobs is not None:
            inputs = offloaded(inputs, self.blobs, tenant=self.tenant, threshold=self.blob_threshold)
        try:
            return ExecuteProgram(
                execution_id=execution_id or uuid7(),
                program_id=program_id,
                inputs=inputs,
                options=options or ExecutionOptions(),
                idempotency_key=idempotency_key,
                callback=callback,
                metadata=metadata or None,  # type: ignore[arg-type]  # a mapping, which the model reads or refuses
            )
        except pydantic.ValidationError as error:
            raise InvalidInput(problems(error)) from None


def _mapping(value: object) -> Mapping[str, Any] | None:
    """The inputs, if they are a mapping of strings; else None."""
    return value if isinstance(value, Mapping) else None
