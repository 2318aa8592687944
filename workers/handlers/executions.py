"""The handlers for executions. `execute_program` answers for what cannot be accepted."""

from __future__ import annotations

from uuid import UUID

from dspex import ExecuteProgram
from dspex.contract.queries import CountExecutions, ExecutionCounts, GetExecution, GetExecutionTrace, ListExecutions
from dspex.contract.results import ExecutionView, Page
from dspex.contract.trace import ExecutionTrace
from dspex.errors import Conflict, NotFound
from store import event_outbox, executions, programs
from store.executions import Conflicting, Ended, Execution, NoProgram, idempotency, traces
from workers.application.wiring import Application
from workers.execution.admission import claim_of
from workers.execution.event_publisher import announce
from workers.handlers.backlog import waiting_view
from workers.handlers.registry import handles
from workers.handlers.waits import Overtaking
from workers.outbound.serializers import execution_view, page_of
from workers.security.authorization import EVERY_ROLE, MAKERS
from workers.security.request import Received


@handles(ExecuteProgram, roles=MAKERS)
def execute_program(app: Application, received: Received[ExecuteProgram]) -> ExecutionView | None:
    """Answer for an execution that could not be accepted before, or accept it now. Runs nothing.

    There is exactly one row for it, however often the message comes.
    """
    request, claim = claim_of(app, received)
    match claim:
        case Ended(execution=execution):
            app.metrics.redelivery()
            # After a crash between the commit and the event, the event may still be in the outbox.
            with app.read(request.tenant) as connection:
                pending = event_outbox.pending(connection, [execution.id], tenant=request.tenant)
            if pending:
                announce(app, execution)
            if received.answered:
                return execution_view(execution)
        case Conflicting(by_key=by_key):
            which = (
                f"idempotency_key: '{received.command.idempotency_key}'" if by_key else f"execution_id: {request.id}"
            )
            raise Conflict(f"{which} belongs to another request")
        case NoProgram():
            raise NotFound(f"program_id: there is no program {request.program_id}")
        case _:
            app.waking.look()
    return None


@handles(GetExecution, roles=EVERY_ROLE)
def get_execution(app: Application, received: Received[GetExecution]) -> ExecutionView:
    """Read one execution."""
    execution = _read(app, received.tenant, received.command.execution_id, received.command.idempotency_key)
    return execution_view(execution, waiting_view(app, execution))


@handles(GetExecutionTrace, roles=EVERY_ROLE)
def get_execution_trace(app: Application, received: Received[GetExecutionTrace]) -> ExecutionTrace:
    """Read the trace of one execution."""
    execution_id, tenant = received.command.execution_id, received.tenant
    with app.read(tenant) as connection:
        found = traces.get(connection, execution_id, tenant=tenant)
    if found is None:
        execution = _read(app, tenant, execution_id)
        raise NotFound(
            f"execution_id: execution {execution.id} has no trace: ask for one by options.trace, or policy.trace_rate "
            "of its program; it is there when an attempt has ended"
        )
    return ExecutionTrace.model_validate(vars(found))


@handles(ListExecutions, roles=EVERY_ROLE)
def list_executions(app: Application, received: Received[ListExecutions]) -> Page[ExecutionView]:
    """Read a page of executions."""
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
            metadata=asked.metadata,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, execution_view, Page[ExecutionView])


@handles(CountExecutions, roles=EVERY_ROLE)
def count_executions(app: Application, received: Received[CountExecutions]) -> ExecutionCounts:
    """Count the newest executions. Raises `NotFound` for a program that does not exist."""
    asked = received.command
    with app.read(received.tenant) as connection:
        counted = executions.count(
            connection,
            asked.program_id,
            error_code=asked.error_code,
            metadata=asked.metadata,
            since=asked.since,
            until=asked.until,
            tenant=received.tenant,
        )
        if counted.oldest is None and asked.program_id is not None:
            programs.get(connection, asked.program_id, tenant=received.tenant)
    return ExecutionCounts.model_validate({**counted.by_status, "complete": counted.complete, "oldest": counted.oldest})


QUERY_SECONDS = 1.0
"""How long a query waits for an execution whose command may not be accepted yet."""
EMBEDDED_SECONDS = 0.3
"""The same in a process that takes its commands itself."""


def _read(app: Application, tenant: str, execution_id: UUID | None, key: str | None = None) -> Execution:
    """The execution with this id, or of this idempotency key.

    Raises:
        NotFound: there is none.
        PutAside: its command may not be accepted yet; look again.
    """
    overtaking = Overtaking(app.settings, tenant, QUERY_SECONDS, EMBEDDED_SECONDS if app.settings.embedded else 0.0)
    while True:
        with app.read(tenant) as connection:
            if key is not None:
                execution_id = idempotency.find(connection, key, tenant=tenant)
            found = [] if execution_id is None else executions.get(connection, [execution_id], tenant=tenant)
        if found:
            return found[0]
        pause = overtaking.pause()
        if pause is None:
            break
        overtaking.wait(pause)
    if execution_id is None:
        raise NotFound(f"idempotency_key: there is no execution of '{key}'")
    raise NotFound(f"execution_id: there is no execution {execution_id}")
