"""The handlers that cancel executions: one, or all that match a filter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

from dspex import ExecutionStatus
from dspex.contract.commands import CancelExecution
from dspex.contract.results import Affected, ExecutionView
from dspex.contract.selections import CancelExecutions
from dspex.errors import IllegalTransition, NotFound
from store import executions
from store.database.identity import Identity
from store.executions import MAX_CANCELS, Execution, early
from workers.application.wiring import Application
from workers.brokers.work_queue import CHANGES
from workers.execution.event_publisher import announce
from workers.handlers.registry import handles
from workers.handlers.selections import chosen
from workers.handlers.waits import Overtaking
from workers.outbound.serializers import execution_view
from workers.security.authorization import MAKERS, OPERATORS
from workers.security.request import Received

logger = logging.getLogger(__name__)


CANCEL_SECONDS = 5.0
"""How long a cancel waits for an execution whose command may not be accepted yet."""
DIRECT_SECONDS = 1.0
"""The same where no message waits, but a caller in this process."""


@handles(CancelExecution, roles=MAKERS)
def cancel_execution(app: Application, received: Received[CancelExecution]) -> ExecutionView:
    """Cancel a pending execution at once; ask the worker of a running one to stop it.

    One that is not there may not be accepted yet. It is waited for, and meanwhile an early cancel makes sure that it
    does not run: what is told `cancelled` never runs, and what is told `not_found` was not touched.
    """
    overtaking = Overtaking(app.settings, received.tenant, CANCEL_SECONDS, DIRECT_SECONDS)
    take_back = partial(early.take_back, execution_id=received.command.execution_id, tenant=received.tenant)
    while True:
        try:
            execution = _cancel_now(app, received, has_waited=overtaking.has_waited)
            break
        except NotFound:
            pause = overtaking.pause()
            if pause is None:
                # A claim that has found it is committed then, so look once more. It may be there although nobody has
                # waited here: left by a worker that has died, and whose message came again.
                app.write(take_back)
                return execution_view(_cancel_now(app, received, has_waited=True))
            leave = partial(early.leave, by=received.principal.name, tenant=received.tenant)
            app.write(partial(leave, execution_id=received.command.execution_id))
            overtaking.wait(pause)
        except IllegalTransition:
            if overtaking.has_waited:
                app.write(take_back)
            raise
    if overtaking.has_waited:
        app.write(take_back)
    return execution_view(execution)


def _cancel_now(app: Application, received: Received[CancelExecution], *, has_waited: bool) -> Execution:
    """Cancel an execution that is there. After a wait, its early cancel may have ended it already."""
    execution_id, tenant = received.command.execution_id, received.tenant
    try:
        return _cancel(app, execution_id, received.principal.name, tenant)
    except IllegalTransition:
        if has_waited:
            with app.read(tenant) as connection:
                for ended in executions.ended(connection, [execution_id], tenant=tenant):
                    if ended.status == ExecutionStatus.CANCELLED:
                        return ended
        raise


@handles(CancelExecutions, roles=OPERATORS, priority=CHANGES)
def cancel_executions(app: Application, received: Received[CancelExecutions]) -> Affected:
    """Cancel the executions of a filter, each batch in a transaction of its own."""
    command, count, cursor = received.command, 0, None
    for page in chosen(app, received, executions.unended, MAX_CANCELS):
        cursor = page.next_cursor
        count += len(page.items) if command.dry_run else _cancel_all(app, received, page.items)
    if not command.dry_run:
        logger.info("%s: %d by %s", command.type, count, received.principal.name)
    return Affected(count=count, next_cursor=cursor)


def _cancel(app: Application, execution_id: UUID, by: str, tenant: str) -> Execution:
    execution = app.write(
        lambda connection: executions.cancel(
            connection,
            execution_id,
            by=by,
            shard=app.writes.shard,
            tenant=tenant,
            webhook_in=app.writes.webhook_in,
        )
    )
    _tell(app, [execution])
    return execution


def _cancel_all(app: Application, received: Received[CancelExecutions], ids: Sequence[UUID]) -> int:
    if not ids:
        return 0
    by, tenant = received.principal.name, received.tenant
    cancelled = app.write(
        partial(
            executions.cancel_many,
            ids=ids,
            by=by,
            shard=app.writes.shard,
            tenant=tenant,
            event_in=app.writes.lease.seconds,
            webhook_in=app.writes.webhook_in,
        )
    )
    _tell(app, cancelled.executions)
    count = len(cancelled.executions)
    for execution_id in cancelled.locked:
        with suppress(IllegalTransition, NotFound):  # it has ended meanwhile
            _cancel(app, execution_id, by, tenant)
            count += 1
    return count


def _tell(app: Application, cancelled: Sequence[Execution]) -> None:
    """Tell the end of those that have ended, and the adapters of those that run here."""
    ended = [execution for execution in cancelled if execution.status == ExecutionStatus.CANCELLED]
    if app.own is not None:
        app.own.deliver(execution.identity for execution in ended)
    for execution in ended:
        app.metrics.execution_ended(execution.status)
        announce(app, execution)
    running: set[Identity] = {execution.identity for execution in cancelled} - {one.identity for one in ended}
    if running:
        app.in_flight.cancel(running)
