"""The interface in a process with database access: commands are carried out here, executions by the workers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from sqlalchemy import Connection

from dspex.amqp.publication import command_publication
from dspex.amqp.topology import EXECUTIONS_QUEUE
from dspex.client.deadline import left
from dspex.client.interface import Interface
from dspex.client.pending import Pending
from dspex.client.poller import Poller
from dspex.client.wakeups import Wakeups
from dspex.contract.commands import Command, ExecuteProgram
from dspex.contract.envelope import NO_CONTEXT, wrap
from dspex.contract.queries import GetExecution
from dspex.errors import Conflict, NoAnswer, RequestFailed
from dspex.ids import DEFAULT_TENANT
from store import executions, rejections
from store.executions import Execution, Request, idempotency
from store.rejections import RecordedRejection, Rejection
from workers.application.own import left_by_others, webhooks_that_wait
from workers.application.wiring import Application, bootstrap
from workers.handlers.dispatch import dispatch
from workers.outbound.serializers import execution_view
from workers.persistence.schema import require_schema
from workers.process.worker import WorkerProcess
from workers.security.authorization import Principal, authorize
from workers.security.principals import EVERYBODY
from workers.security.request import Received
from workers.settings import Settings, load_settings

View = TypeVar("View", bound=BaseModel)

SOURCE = "/dspex/local"
FIRST_SECONDS = 0.01
LONGEST_SECONDS = 0.5
"""The longest interval between two look-ups of an execution without a notification, in seconds."""

logger = logging.getLogger(__name__)


class LocalClient(Interface):
    """The client of a principal, in this process. Thread-safe. It does not close the application.

    To wait for an execution, it looks the execution up in the database: at once after a notification (from this
    process, or by Redis, if set), and otherwise at intervals.

    Args:
        app: the application, whose broker takes the executions. With the in-process broker, a `WorkerProcess` of the
    application must run them.
    """

    def __init__(self, app: Application, principal: Principal = EVERYBODY) -> None:
        self._app = app
        self._principal = principal
        self.tenant = principal.tenant
        self.blobs = app.blobs
        self.blob_threshold = app.settings.blob_threshold
        self._poller = Poller(self._look_up, longest=lambda _: LONGEST_SECONDS)
        self._refusals: WeakKeyDictionary[Pending, UUID] = WeakKeyDictionary()  # the ids of possible rejections
        self._wakeups = None
        app.notifications.listen(self._poller.wake)
        if app.settings.redis_url is not None:
            self._wakeups = Wakeups(
                app.settings.redis_url, self._poller.wake, lambda: self._poller.wake_all(FIRST_SECONDS)
            )

    def ask(
        self,
        command: Command,
        answer: type[View],
        *,
        timeout: float,  # noqa: ARG002  carried out at once
        traceparent: str | None = None,
    ) -> View:
        """See `Port.ask`."""
        trace = NO_CONTEXT if traceparent is None else wrap(command, source=SOURCE, traceparent=traceparent).context
        found = dispatch(self._app, Received(command, self._principal, SOURCE, answered=True, context=trace))
        return answer.model_validate(found.model_dump() if found is not None else None)

    def start(
        self, command: ExecuteProgram, *, timeout: float | None = None, traceparent: str | None = None
    ) -> Pending:
        """See `Port.start`."""
        authorize(self._principal, command)
        envelope = wrap(command, source=SOURCE, traceparent=traceparent, tenant=self._principal.tenant)
        body = envelope.encode()
        pending = Pending.of(command, traceparent)
        self._refusals[pending] = Rejection(EXECUTIONS_QUEUE, "", "", body, len(body), tenant=self._principal.tenant).id
        self._wait_for(pending)
        pending.sent(
            self._app.publisher.submit(
                command_publication(envelope, body),
                timeout=left(self.timeout if timeout is None else timeout),
            )
        )
        return pending

    def attach(self, wanted: GetExecution) -> Pending:
        """See `Port.attach`."""
        authorize(self._principal, wanted)
        pending = Pending(wanted)
        self._wait_for(pending)
        return pending

    def close(self) -> None:
        """Stop looking executions up. Every wait fails with `NoAnswer`; the executions themselves go on."""
        self._app.notifications.unlisten(self._poller.wake)
        if self._wakeups is not None:
            self._wakeups.close()
        self._poller.close(lambda: NoAnswer("the client is closed; the execution goes on"))

    def _wait_for(self, pending: Pending) -> None:
        if self._wakeups is not None:
            self._wakeups.start()
        self._poller.add(pending, FIRST_SECONDS, FIRST_SECONDS)

    def _look_up(self, some: Sequence[Pending]) -> None:
        tenant = self._principal.tenant
        with self._app.read(tenant) as connection:
            refusals = [self._refusals[pending] for pending in some if pending in self._refusals]
            refused: dict[UUID | None, RecordedRejection] = {
                found.id: found for found in rejections.find(connection, refusals, tenant=tenant)
            }
            ids = {pending: _id_of(pending, connection, tenant) for pending in some}
            known = [id_ for id_ in ids.values() if id_ is not None]
            ended: dict[UUID | None, Execution] = {
                found.id: found for found in executions.ended(connection, known, tenant=tenant)
            }
        for pending, execution_id in ids.items():
            refusal = self._refusals.get(pending)
            if refusal in refused:
                reason = refused[refusal]
                pending.fail(RequestFailed(reason.error_code, reason.error_message))
            elif execution_id in ended:
                _settle(pending, ended[execution_id])


def _id_of(pending: Pending, connection: Connection, tenant: str) -> UUID | None:
    key = pending.wanted.idempotency_key
    return pending.wanted.execution_id if key is None else idempotency.find(connection, key, tenant=tenant)


def _settle(pending: Pending, found: Execution) -> None:
    # The worker rejects another request with the same id; this is the end of the old one.
    if pending.command is not None and _digest(found) != _digest(pending.command):
        pending.fail(Conflict(f"execution_id: {found.id} belongs to another request"))
    else:
        pending.seen(execution_view(found))


def _digest(asked: ExecuteProgram | Execution) -> str:
    """The digest of a request."""
    return Request(
        uuid.UUID(int=0), asked.program_id, asked.inputs, asked.options, SOURCE, callback=asked.callback
    ).digest


@contextmanager
def embedded(settings: Settings | None = None, *, run_others: bool = False) -> Generator[LocalClient]:
    """DSPex in this process, without a server: SQLite, the in-process broker, and threads that run the programs.

    Args:
        settings: by default those of the environment.
        run_others: whether to run also the executions that other processes have left in the database, pending or with a
            lost worker. Otherwise they are left alone, and a warning says how many there are.

    Raises:
        SettingsError: a setting is wrong, or the database cannot be opened.
    """
    app = bootstrap(settings or load_settings(), run_others=run_others)
    worker = WorkerProcess(app)
    try:
        require_schema(app.engine)
        if not run_others and (found := left_by_others(app.engine, DEFAULT_TENANT, own=())):
            logger.warning("%s that others left in the database: embedded(run_others=True) runs them.", found)
        if not run_others and (found := webhooks_that_wait(app.engine, DEFAULT_TENANT)):
            logger.warning("To be sent from this database: %s; embedded(run_others=True) sends what is due.", found)
        worker.start()
        with LocalClient(app) as client:
            yield client
        worker.stop(app.settings.shutdown_seconds)
    finally:
        app.close()
