"""What is done with executions. `execute_program` is the walk of one message: claim, run, finish, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from adapters.port import AdapterError, Outcome, RunOptions
from dspex import (
    ErrorCode,
    ErrorDetail,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStatus,
    Usage,
)
from dspex.commands import CancelExecution
from dspex.errors import Conflict, InvalidValues, NotFound
from dspex.events import ExecutionCancelled
from dspex.queries import GetExecution, ListExecutions
from dspex.results import ExecutionView, Page
from store import executions, programs
from store.executions import Claimed, Conflicting, Ended, Execution, Finish, NoProgram, Request, Running
from workers.application import Application
from workers.handlers.details import detail_of, internal, storable
from workers.handlers.views import execution_view, page_of
from workers.received import Received
from workers.writer import WriterClosed

logger = logging.getLogger(__name__)


def execute_program(app: Application, received: Received[ExecuteProgram]) -> ExecutionView | None:
    """Run a program once, and leave exactly one row of it, however often the message comes."""
    command = received.command
    request = Request(
        id=command.execution_id,
        program_id=command.program_id,
        inputs=command.inputs,
        options=command.options,
        source=received.source,
        traceparent=received.traceparent,
        tenant=received.tenant,
    )
    match app.writer.call(app.writes.claim, request):
        case Claimed() as claimed:
            app.running.begin(claimed)
            try:
                _end(app, request, claimed, _run(app, request, claimed))
            finally:
                app.running.end(claimed)
        case Ended(execution=execution):
            # A crash between the commit and the event: the event may still be owed.
            app.emit(_event_of(execution, execution.attempt), execution.traceparent)
        case Running():
            logger.info("Execution %s is running elsewhere: the message is dropped.", request.id)
            return None
        case Conflicting():
            raise Conflict(f"execution_id: {request.id} belongs to another request")
        case NoProgram():
            raise NotFound(f"program_id: there is no program {request.program_id}")
    return _find(app, request.id, request.tenant) if received.answered else None


def cancel_execution(app: Application, received: Received[CancelExecution]) -> ExecutionView:
    """Cancel a pending execution at once; ask the worker of a running one to stop it."""
    execution_id, tenant = received.command.execution_id, received.tenant
    execution = app.write(
        lambda connection: executions.cancel(
            connection, execution_id, by=received.principal.name, shard=app.writes.shard, tenant=tenant
        )
    )
    if execution.status == ExecutionStatus.CANCELLED:
        app.emit(_event_of(execution, execution.attempt), execution.traceparent)
    else:
        app.running.cancel({execution_id})
    return execution_view(execution)


def get_execution(app: Application, received: Received[GetExecution]) -> ExecutionView:
    """Read one."""
    return _find(app, received.command.execution_id, received.tenant)


def list_executions(app: Application, received: Received[ListExecutions]) -> Page[ExecutionView]:
    """Read a page."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = executions.page(
            connection,
            program_id=asked.program_id,
            status=asked.status,
            since=asked.since,
            until=asked.until,
            error_code=asked.error_code,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, execution_view, Page[ExecutionView])


def give_up(app: Application, request: Request, reason: str) -> None:
    """End an execution that cannot be sent again, unless somebody runs it."""
    claimed = app.writer.call(app.writes.claim, request)
    if isinstance(claimed, Claimed):
        error = ErrorDetail(code=ErrorCode.INTERNAL, message=reason)
        finish = Finish(
            request.id, request.program_id, claimed.lock_version, 0.0, Usage(), error=error, tenant=request.tenant
        )
        _end(app, request, claimed, finish)


def _end(app: Application, request: Request, claimed: Claimed, finish: Finish) -> None:
    try:
        ended = app.writer.call(app.writes.finish, finish)
    except WriterClosed:
        raise
    except Exception as unexpected:
        # Not to end it would have it run again, and come to this again.
        logger.exception("What execution %s came to cannot be stored.", request.id)
        finish = replace(finish, outputs=None, usage=Usage(), error=internal(unexpected))
        ended = app.writer.call(app.writes.finish, finish)
    if ended:
        app.emit(_event_of(finish, claimed.attempt), request.traceparent)
    else:
        logger.warning("Execution %s was taken over by another worker: its result is discarded.", request.id)


def _run(app: Application, request: Request, claimed: Claimed) -> Finish:
    """Validate, run, and say how it ended. No transaction is open."""
    started = time.perf_counter()
    usage, outputs, error = Usage(), None, None
    try:
        if claimed.cancel_requested:
            raise AdapterError(ErrorCode.CANCELLED, "it was cancelled before it was run again")
        if claimed.attempt > app.settings.max_attempts:
            raise AdapterError(
                ErrorCode.ATTEMPTS_EXHAUSTED,
                f"its worker died or lost its lease {claimed.attempt - 1} times; DSPEX_MAX_ATTEMPTS is the limit",
            )
        if claimed.backend_id is None:
            raise _not_ready(app, request)
        loaded = app.programs.load(request.program_id, claimed.backend_id, request.tenant)
        app.running.begin(claimed, loaded)
        options = RunOptions(run_id=str(request.id), seed=request.options.seed)
        outcome = loaded.execute(loaded.signature.validate_inputs(request.inputs), options)
        usage = outcome.usage
        outputs = _within(app.settings.max_message_bytes, outcome)
    except InvalidValues as invalid:
        error = detail_of(invalid)
    except AdapterError as failed:
        usage = failed.usage
        error = ErrorDetail(code=failed.code, message=storable(failed.message))
    except WriterClosed:
        raise
    except (Exception, SystemExit) as unexpected:
        logger.exception("Execution %s failed unexpectedly.", request.id)
        error = internal(unexpected)
    cancelled = app.running.is_cancelled(claimed) or (error is not None and error.code == ErrorCode.CANCELLED)
    return Finish(
        id=request.id,
        program_id=request.program_id,
        lock_version=claimed.lock_version,
        duration_ms=(time.perf_counter() - started) * 1000,
        usage=usage,
        outputs=None if cancelled else outputs,
        error=None if cancelled else error,
        cancelled=cancelled,
        tenant=request.tenant,
    )


def _not_ready(app: Application, request: Request) -> AdapterError:
    program = app.write(lambda connection: programs.get(connection, request.program_id, tenant=request.tenant))
    reason = f" ({program.error.message})" if program.error else ""
    return AdapterError(
        ErrorCode.PROGRAM_NOT_READY,
        f"program {program.id} is {program.status}{reason}: execute it after dspex.program.ready.v1",
    )


def _within(max_bytes: int, outcome: Outcome) -> Mapping[str, Any]:
    size = len(to_json(outcome.outputs))
    if size > max_bytes:
        raise AdapterError(
            ErrorCode.INVALID_OUTPUT,
            f"the outputs have {size} bytes; DSPEX_MAX_MESSAGE_BYTES allows {max_bytes}",
            usage=outcome.usage,
        )
    return outcome.outputs


def _find(app: Application, execution_id: UUID, tenant: str) -> ExecutionView:
    with app.read(tenant) as connection:
        found = executions.get(connection, [execution_id], tenant=tenant)
    if not found:
        raise NotFound(f"execution_id: there is no execution {execution_id}")
    return execution_view(found[0])


def _event_of(ended: Finish | Execution, attempt: int) -> ExecutionCompleted | ExecutionFailed | ExecutionCancelled:
    common: dict[str, Any] = {
        "execution_id": ended.id,
        "program_id": ended.program_id,
        "attempt": attempt,
        "duration_ms": ended.duration_ms or 0.0,
        "usage": ended.usage,
    }
    if ended.status == ExecutionStatus.CANCELLED:
        return ExecutionCancelled(**common)
    if ended.error is None:
        return ExecutionCompleted(outputs=dict(ended.outputs or {}), **common)
    return ExecutionFailed(error=ended.error, **common)
