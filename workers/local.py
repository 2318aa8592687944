"""The interface in a process that has the database: what is asked is done here; executions go to the workers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel

from dspex.commands import Command, ExecuteProgram
from dspex.errors import Conflict, NoAnswer, RequestFailed
from dspex.interface import DEFAULT_TIMEOUT, Interface
from dspex.producer import Producer
from store import executions, rejections
from store.executions import Execution, Request
from workers.application import Application, bootstrap
from workers.handlers import dispatch
from workers.handlers.views import execution_view
from workers.policy import Principal, authorize
from workers.principals import EVERYBODY
from workers.process import WorkerProcess
from workers.received import Received
from workers.schema import require_schema
from workers.settings import Settings, load_settings

View = TypeVar("View", bound=BaseModel)

SOURCE = "/dspex/local"
POLL_SECONDS = 0.01


class LocalClient(Interface):
    """Asks in the name of a principal. Thread-safe; whoever made the application closes it.

    Args:
        app: its broker takes the executions; with the in-process one, a `WorkerProcess` of it runs them.
    """

    def __init__(self, app: Application, principal: Principal = EVERYBODY) -> None:
        self._app = app
        self._principal = principal
        self._producer = Producer(app.publisher, source=SOURCE)

    def call(self, command: Command, answer: type[View], *, timeout: float | None = None) -> View:
        """See `Interface.call`."""
        if isinstance(command, ExecuteProgram):
            found: BaseModel | None = self._execute(command, DEFAULT_TIMEOUT if timeout is None else timeout)
        else:
            found = dispatch(self._app, Received(command, self._principal, SOURCE, answered=True))
        return answer.model_validate(found.model_dump() if found is not None else None)

    def close(self) -> None:
        """Nothing is its own."""

    def _execute(self, command: ExecuteProgram, timeout: float) -> BaseModel:
        authorize(self._principal, command)
        deadline = time.monotonic() + timeout
        message_id = self._producer.send(command, tenant=self._principal.tenant)
        while True:
            found = self._ended(command, message_id)
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise NoAnswer(f"execution {command.execution_id} has not ended in {timeout:.0f} s; it goes on")
            time.sleep(POLL_SECONDS)

    def _ended(self, command: ExecuteProgram, message_id: str) -> BaseModel | None:
        tenant = self._principal.tenant
        with self._app.read(tenant) as connection:
            refused = [r for r in rejections.recent(connection, tenant=tenant) if r.message_id == message_id]
            found = executions.ended(connection, [command.execution_id], tenant=tenant)
        if refused:
            raise RequestFailed(refused[0].error_code, refused[0].error_message)
        if not found:
            return None
        if _digest(found[0]) != _digest(command):
            raise Conflict(f"execution_id: {command.execution_id} belongs to another request")
        return execution_view(found[0])


def _digest(asked: ExecuteProgram | Execution) -> str:
    """Of what was asked for: the worker rejects another request under the same id, and the old one has ended."""
    return Request(
        uuid.UUID(int=0), asked.program_id, asked.inputs, asked.options, SOURCE, callback=asked.callback
    ).digest


@contextmanager
def embedded(settings: Settings | None = None) -> Generator[LocalClient]:
    """DSPex in this process, without a server: SQLite, the in-process broker, and threads that run the programs.

    Args:
        settings: from the environment, where none are given.

    Raises:
        SettingsError: a setting is wrong, or the database cannot be opened.
    """
    app = bootstrap(settings or load_settings())
    worker = WorkerProcess(app)
    try:
        require_schema(app.engine)
        worker.start()
        yield LocalClient(app)
        worker.stop(app.settings.shutdown_seconds)
    finally:
        app.close()
