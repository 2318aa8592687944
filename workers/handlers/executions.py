"""What is done with executions. `execute_program` is the walk of one message: claim, run, end, tell."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

from dspex import ErrorCode, ErrorDetail, ExecuteProgram, ExecutionStatus
from dspex.commands import CancelExecution
from dspex.errors import Conflict, DspexError, NotFound
from dspex.queries import GetExecution, ListExecutions
from dspex.results import ExecutionView, Page
from store import callbacks, executions, idempotency
from store.executions import Claim, Claimed, Conflicting, Ended, Execution, NoProgram, Request, Running, Waiting
from store.identity import Identity
from workers.application import Application
from workers.attempts import Attempt
from workers.brokers.settlement import ack_early
from workers.callbacks import announce
from workers.endings import end
from workers.received import Received
from workers.running import PATIENCE_SECONDS
from workers.views import execution_view, page_of

logger = logging.getLogger(__name__)


class Taken:
    """An execution, and what its claim came to.

    Attributes:
        attempt: where it is this process's to run.
    """

    def __init__(self, app: Application, request: Request, claim: Claim) -> None:
        self.request = request
        self.claim = claim
        self.attempt: Attempt | None = None
        if app.own is not None and isinstance(claim, Claimed | Running | Waiting):
            app.own.add(
                [Identity(claim.id, request.tenant)]
            )  # whoever sends a message to this process asks it to run that
        if isinstance(claim, Claimed):
            self.attempt = Attempt(app, request, claim)
            app.running.begin(self.attempt)  # from here on its lease is renewed


def execute_program(app: Application, received: Received[ExecuteProgram]) -> ExecutionView | None:
    """Run a program, and leave exactly one row of it, however often the message comes.

    The answer of an execution that ends here is among what is owed for it, and sent as such.
    """
    with _together(app, received) as taken:
        if taken.attempt is not None:
            if not taken.attempt.last_chance:
                _run(app, taken.attempt)
                return None
            app.running.end(taken.attempt)
            app.claimer.call(app.writes.give_back, taken.attempt.execution)
    claim, request, command = taken.claim, taken.request, received.command
    if isinstance(claim, Running | Waiting | Ended):
        app.metrics.redelivery()
    match claim:
        case Claimed():
            _run_alone(app, request)
        case Ended(execution=execution):
            # A crash between the commit and the event: the event may still be owed.
            with app.read(request.tenant) as connection:
                owed = callbacks.owed(connection, [execution.id], tenant=request.tenant)
            if owed:
                announce(app, execution)
            if received.answered:
                return execution_view(execution)
        case Running():
            app.episodes.tell(
                "Messages of executions that run elsewhere are dropped", f"execution {request.id}", level=logging.INFO
            )
        case Waiting():
            logger.debug("Execution %s is not due yet: the message is dropped.", request.id)
        case Conflicting(by_key=by_key):
            which = f"idempotency_key: '{command.idempotency_key}'" if by_key else f"execution_id: {request.id}"
            raise Conflict(f"{which} belongs to another request")
        case NoProgram():
            raise NotFound(f"program_id: there is no program {request.program_id}")
    return None


def request_of(received: Received[ExecuteProgram]) -> Request:
    """What the store is asked to claim."""
    command = received.command
    return Request(
        id=command.execution_id,
        program_id=command.program_id,
        inputs=command.inputs,
        options=command.options,
        source=received.source,
        traceparent=received.context.traceparent,
        tenant=received.tenant,
        idempotency_key=command.idempotency_key,
        reply_to=received.reply_to,
        correlation_id=received.correlation_id,
        callback=command.callback,
        metadata=command.metadata or {},
        extensions=received.context.extensions,
    )


@contextmanager
def _together(app: Application, received: Received[ExecuteProgram]) -> Generator[Taken]:
    """Beside other executions, with the claim: made ahead (see `workers.intake`), or here."""
    place = received.place
    if place is not None and place.taken is not None:
        yield place.taken
        place.step_aside()
        return
    request = request_of(received)
    _check_callback(app, request)
    with app.isolation.together():
        taken = Taken(app, request, app.claimer.call(app.writes.claim, request))
        if taken.attempt is not None:
            ack_early()
        yield taken


def _check_callback(app: Application, request: Request) -> None:
    """Refuse a callback that cannot be. One that was taken stays: the relay sends it again, whatever is set by now."""
    try:
        app.webhooks.check(request.tenant, request.callback)
    except DspexError:
        with app.read(request.tenant) as connection:
            known = executions.get(connection, [request.id], tenant=request.tenant)
        if not known or known[0].callback != request.callback:
            raise


def _run(app: Application, attempt: Attempt) -> None:
    app.running.begin(attempt)
    try:
        ended = attempt.run()
    except BaseException:
        app.running.end(attempt)
        raise
    end(app, attempt, ended)


def _run_alone(app: Application, request: Request) -> None:
    """Run what may take its process with it when nothing else can be lost: nothing is claimed, all ends are written."""
    with app.isolation.alone(request.identity) as waited:
        if not waited:
            return
        app.unwritten.wait(PATIENCE_SECONDS)
        claim = app.claimer.call(app.writes.claim, request)
        if isinstance(claim, Claimed):
            _run(app, Attempt(app, request, claim))
            app.unwritten.wait(PATIENCE_SECONDS)


def cancel_execution(app: Application, received: Received[CancelExecution]) -> ExecutionView:
    """Cancel a pending execution at once; ask the worker of a running one to stop it."""
    execution_id, tenant = received.command.execution_id, received.tenant
    if app.own is not None:
        app.own.deliver([Identity(execution_id, tenant)])
    execution = app.write(
        lambda connection: executions.cancel(
            connection,
            execution_id,
            by=received.principal.name,
            shard=app.writes.shard,
            tenant=tenant,
            webhook_in=app.writes.webhook_in,
        )
    )
    if execution.status == ExecutionStatus.CANCELLED:
        app.metrics.execution_ended(execution.status)
        announce(app, execution)
    else:
        app.running.cancel({execution.identity})
    return execution_view(execution)


def get_execution(app: Application, received: Received[GetExecution]) -> ExecutionView:
    """Read one."""
    asked, tenant = received.command, received.tenant
    execution_id = asked.execution_id
    if asked.idempotency_key is not None:
        with app.read(tenant) as connection:
            execution_id = idempotency.find(connection, asked.idempotency_key, tenant=tenant)
    if execution_id is None:
        raise NotFound(f"idempotency_key: there is no execution of '{asked.idempotency_key}'")
    return execution_view(_read(app, execution_id, tenant))


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
            discarded=asked.discarded,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, execution_view, Page[ExecutionView])


def give_up(app: Application, request: Request, reason: str) -> None:
    """End an execution that cannot be sent again, unless somebody runs it."""
    claimed = app.claimer.call(app.writes.claim, request)
    if isinstance(claimed, Claimed):
        attempt = Attempt(app, request, claimed)
        end(app, attempt, attempt.failed(ErrorDetail(code=ErrorCode.INTERNAL, message=reason)))


def _read(app: Application, execution_id: UUID, tenant: str) -> Execution:
    with app.read(tenant) as connection:
        found = executions.get(connection, [execution_id], tenant=tenant)
    if not found:
        raise NotFound(f"execution_id: there is no execution {execution_id}")
    return found[0]
