"""The handlers for external executions, which a service runs itself and marks."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from adapters.extras import bounded_extras
from adapters.port import AdapterError, Outcome
from dspex import ErrorCode, ErrorDetail, ProgramStatus, Signature, Usage
from dspex.contract.external import CreateExecution, Mark, MarkCompleted, MarkFailed, MarkRunning, ReportedUsage
from dspex.contract.options import ExecutionOptions
from dspex.contract.results import ExecutionView
from dspex.errors import BlobsUnavailable, IllegalTransition, InvalidOutput, InvalidValues, NotFound, Problem
from dspex.ids import digest
from dspex.signatures.signature import unstorable
from dspex.text import masked, storable, visible
from store import executions, programs
from store.executions import Request, external
from store.programs import Program
from workers.application.wiring import Application
from workers.execution.blobs import kept_outputs, whole_inputs, whole_outputs
from workers.execution.event_publisher import tell_end
from workers.handlers.registry import handles
from workers.outbound.serializers import execution_view
from workers.security.authorization import MAKERS
from workers.security.request import Received


@handles(CreateExecution, roles=MAKERS)
def create_execution(app: Application, received: Received[CreateExecution]) -> ExecutionView:
    """Create an execution that no worker runs."""
    command, tenant = received.command, received.tenant
    if reason := unstorable(command.model_dump(mode="json")):
        raise InvalidValues(reason)
    app.callbacks.check(tenant, command.callback)
    with app.read(tenant) as connection:
        there = executions.get(connection, [command.execution_id], tenant=tenant)
        program = None if there else programs.get(connection, command.program_id, tenant=tenant)
    if program is not None:  # else it is the same again, or a conflict
        if program.status == ProgramStatus.ARCHIVED:
            raise IllegalTransition(f"program {program.id} is archived: it takes no new executions")
        with _refused():
            given = whole_inputs(app, command.inputs, program.signature, tenant)
        program.signature.validate_inputs(given)
    request = Request(
        id=command.execution_id,
        program_id=command.program_id,
        inputs=command.inputs,
        options=ExecutionOptions(),
        source=received.source,
        traceparent=received.context.traceparent,
        tenant=tenant,
        idempotency_key=command.idempotency_key,
        callback=command.callback,
        metadata=command.metadata or {},
        extensions=received.context.extensions,
        requested_at=received.requested_at,
    )
    return execution_view(app.write(lambda connection: external.create(connection, request)))


@handles(MarkRunning, roles=MAKERS)
def mark_running(app: Application, received: Received[MarkRunning]) -> ExecutionView:
    """Mark an external execution running, or renew its lease."""
    mark, seconds = _mark(received), received.command.expires_in
    return execution_view(app.write(lambda connection: external.mark_running(connection, mark, seconds)))


@handles(MarkCompleted, roles=MAKERS)
def mark_completed(app: Application, received: Received[MarkCompleted]) -> ExecutionView:
    """End an external execution with outputs, which are validated like those of an adapter."""
    command, tenant = received.command, received.tenant
    with app.read(tenant) as connection:
        there = executions.get(connection, [command.execution_id], tenant=tenant)
        if not there:
            raise NotFound(f"execution_id: there is no execution {command.execution_id}")
        ended = there[0].status.terminal
        program = None if ended else programs.get(connection, there[0].program_id, tenant=tenant)
    result = external.Result()
    if program is not None:  # else it was ended by this very mark, whatever the signature is now, or is a conflict
        result = external.Result(
            outputs=_kept(app, program.signature, command.outputs, tenant),
            extra_outputs=_extras(program, command.extra_outputs or {}),
            usage=_usage(command.usage),
            duration_ms=command.duration_ms,
        )
    return _end(app, _mark(received), result)


@handles(MarkFailed, roles=MAKERS)
def mark_failed(app: Application, received: Received[MarkFailed]) -> ExecutionView:
    """End an external execution with an error."""
    command = received.command
    message = storable(visible(masked(command.error.message)))
    error = ErrorDetail(code=command.error.code, message=message)
    result = external.Result(error=error, usage=_usage(command.usage), duration_ms=command.duration_ms)
    return _end(app, _mark(received), result)


def _mark(received: Received[Any]) -> external.Mark:
    command: Mark = received.command
    whole = {"type": command.type, **command.model_dump(mode="json")}
    by = f"external:{received.principal.name}"[:128]  # no worker has a name with a colon
    return external.Mark(command.execution_id, command.lock_version, digest(whole), by, received.tenant)


def _end(app: Application, mark: external.Mark, result: external.Result) -> ExecutionView:
    writes = app.writes
    marked = app.write(
        lambda connection: external.end(
            connection,
            mark,
            result,
            shard=writes.shard,
            event_in=writes.lease.seconds,
            webhook_in=writes.webhook_in,
        )
    )
    if marked.ended:
        tell_end(app, marked.execution)
    return execution_view(marked.execution)


def _usage(reported: ReportedUsage | None) -> Usage:
    return external.UNKNOWN if reported is None else Usage(**reported.model_dump())


def _kept(app: Application, signature: Signature, outputs: Mapping[str, Any], tenant: str) -> Mapping[str, Any]:
    """The outputs, once they are validated, as the row has them: large ones are in the blob store, if there is one."""
    with _refused():
        whole = whole_outputs(app, outputs, signature, tenant)
        return kept_outputs(app, Outcome(signature.validate_outputs(whole)), tenant)


@contextmanager
def _refused() -> Generator[None]:
    """Raise what an attempt would end with as what the mark is refused with, so that it can be made again."""
    try:
        yield
    except AdapterError as error:
        if error.code == ErrorCode.INVALID_OUTPUT:
            raise InvalidOutput(error.message) from None
        raise BlobsUnavailable(error.message) from None


def _extras(program: Program, given: Mapping[str, Any]) -> dict[str, Any]:
    names = program.configuration.extra_outputs
    if unknown := [name for name in given if name not in names]:
        text = "the program does not ask for it: add it to its extra_outputs, or leave it out"
        raise InvalidOutput([Problem(f"extra_outputs.{name}", text) for name in unknown])
    return bounded_extras(names, given)
