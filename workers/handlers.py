"""What each command does. `execute_program` is the walk of one message: claim, run, finish, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic_core import to_json

from adapters.port import AdapterError, Outcome, RunOptions
from dspex import (
    CreateProgram,
    CreateSignature,
    Envelope,
    ErrorCode,
    ErrorDetail,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionFailed,
    InitializeProgram,
    ProgramError,
    ProgramReady,
    ProgramStatus,
    Usage,
)
from dspex.errors import Conflict, InvalidValues, NotFound
from dspex.events import Event, ProblemDetail
from store.executions import Claimed, Conflicting, Ended, Execution, Finish, NoProgram, Request, Running
from workers.application import Application
from workers.programs import spec_of
from workers.writer import WriterClosed

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

DEPENDENCY_SECONDS = 5.0
"""How long a command waits for the one before it, which another thread or worker may still be at."""


def create_signature(app: Application, envelope: Envelope[CreateSignature]) -> None:
    """Keep a signature."""
    app.writer.call(app.writes.create_signature, envelope.data)


def create_program(app: Application, envelope: Envelope[CreateProgram]) -> None:
    """Keep a program, as a draft."""
    _after_its_dependency(lambda: app.writer.call(app.writes.create_program, envelope.data))


def initialize_program(app: Application, envelope: Envelope[InitializeProgram]) -> None:
    """Have the adapter build a program: ready with its backend id, or error with the reason."""
    program_id = envelope.data.program_id
    program = _after_its_dependency(lambda: app.writer.call(app.writes.begin_initialize, program_id))
    if program.status != ProgramStatus.READY:
        result: str | ErrorDetail
        try:
            result = app.programs.build(spec_of(program)).spec.backend_id
        except AdapterError as error:
            result = ErrorDetail(code=error.code, message=_storable(error.message))
        except (Exception, SystemExit) as error:
            logger.exception("Program %s could not be built.", program_id)
            result = _internal(error)
        ended = app.writer.call(app.writes.end_initialize, (program, result))
        if ended is None:
            logger.info("Program %s is being initialized by another worker.", program_id)
            return
        program = ended
    if program.status == ProgramStatus.READY:
        event: Event = ProgramReady(program_id=program.id, name=program.name, backend_id=program.backend_id or "")
    else:
        reason = program.error or ErrorDetail(code=ErrorCode.INTERNAL, message="no reason was kept")
        event = ProgramError(program_id=program.id, name=program.name, error=reason)
    app.emit(event, envelope.traceparent)


def execute_program(app: Application, envelope: Envelope[ExecuteProgram]) -> None:
    """Run a program once, and leave exactly one row of it, however often the message comes."""
    command = envelope.data
    request = Request(
        id=command.execution_id,
        program_id=command.program_id,
        inputs=command.inputs,
        options=command.options,
        source=envelope.source,
        traceparent=envelope.traceparent,
    )
    match app.writer.call(app.writes.claim, request):
        case Claimed() as claimed:
            app.running.add(claimed)
            try:
                _end(app, request, claimed, _run(app, request, claimed))
            finally:
                app.running.discard(claimed)
        case Ended(execution=execution):
            # A crash between the commit and the event: the event may still be owed.
            app.emit(_event_of(execution, execution.attempt), execution.traceparent)
        case Running():
            logger.info("Execution %s is running elsewhere: the message is dropped.", request.id)
        case Conflicting():
            raise Conflict(f"execution_id: {request.id} belongs to another request")
        case NoProgram():
            raise NotFound(f"program_id: there is no program {request.program_id}")


def give_up(app: Application, request: Request, reason: str) -> None:
    """End an execution that cannot be sent again, unless somebody runs it."""
    claimed = app.writer.call(app.writes.claim, request)
    if isinstance(claimed, Claimed):
        error = ErrorDetail(code=ErrorCode.INTERNAL, message=reason)
        finish = Finish(request.id, request.program_id, claimed.lock_version, 0.0, Usage(), error=error)
        _end(app, request, claimed, finish)


def _end(app: Application, request: Request, claimed: Claimed, finish: Finish) -> None:
    try:
        ended = app.writer.call(app.writes.finish, finish)
    except WriterClosed:
        raise
    except Exception as unexpected:
        # Not to end it would have it run again, and come to this again.
        logger.exception("What execution %s came to cannot be stored.", request.id)
        finish = replace(finish, outputs=None, usage=Usage(), error=_internal(unexpected))
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
        if claimed.attempt > app.settings.max_attempts:
            raise AdapterError(
                ErrorCode.ATTEMPTS_EXHAUSTED,
                f"its worker died or lost its lease {claimed.attempt - 1} times; DSPEX_MAX_ATTEMPTS is the limit",
            )
        if claimed.backend_id is None:
            raise _not_ready(app, request)
        program = app.programs.load(request.program_id, claimed.backend_id)
        options = RunOptions(run_id=str(request.id), seed=request.options.seed)
        outcome = program.execute(program.signature.validate_inputs(request.inputs), options)
        usage = outcome.usage
        outputs = _within(app.settings.max_message_bytes, outcome)
    except InvalidValues as invalid:
        problems = tuple(ProblemDetail(field=p.field, message=p.message) for p in invalid.problems)
        error = ErrorDetail(code=invalid.code, message=_storable(invalid.message), problems=problems)
    except AdapterError as failed:
        usage = failed.usage
        error = ErrorDetail(code=failed.code, message=_storable(failed.message))
    except WriterClosed:
        raise
    except (Exception, SystemExit) as unexpected:
        logger.exception("Execution %s failed unexpectedly.", request.id)
        error = _internal(unexpected)
    return Finish(
        id=request.id,
        program_id=request.program_id,
        lock_version=claimed.lock_version,
        duration_ms=(time.perf_counter() - started) * 1000,
        usage=usage,
        outputs=outputs,
        error=error,
    )


def _internal(unexpected: BaseException) -> ErrorDetail:
    """Only the log has the text of an unexpected error: it may hold anything."""
    return ErrorDetail(code=ErrorCode.INTERNAL, message=f"{type(unexpected).__name__}: see the worker's log")


def _not_ready(app: Application, request: Request) -> AdapterError:
    program = app.writer.call(app.writes.get_program, request.program_id)
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


def _storable(text: str) -> str:
    """An error's text may quote an LM: U+0000 and lone surrogates cannot be stored."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def _event_of(ended: Finish | Execution, attempt: int) -> ExecutionCompleted | ExecutionFailed:
    common: dict[str, Any] = {
        "execution_id": ended.id,
        "program_id": ended.program_id,
        "attempt": attempt,
        "duration_ms": ended.duration_ms or 0.0,
        "usage": ended.usage,
    }
    if ended.error is None:
        return ExecutionCompleted(outputs=dict(ended.outputs or {}), **common)
    return ExecutionFailed(error=ended.error, **common)


def _after_its_dependency(act: Callable[[], Result]) -> Result:
    """Commands sent one after the other are handled side by side: give the earlier one a moment."""
    deadline = time.monotonic() + DEPENDENCY_SECONDS
    pause = 0.01
    while True:
        try:
            return act()
        except NotFound:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


HANDLERS: dict[str, Callable[[Application, Envelope[Any]], None]] = {
    CreateSignature.type: create_signature,
    CreateProgram.type: create_program,
    InitializeProgram.type: initialize_program,
    ExecuteProgram.type: execute_program,
}
