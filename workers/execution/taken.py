"""An execution as a message asks for it, and what its claim came to."""

from __future__ import annotations

from dspex import ExecuteProgram
from store.database.identity import Identity
from store.executions import Claim, Claimed, Request, Running, Waiting
from workers.application.wiring import Application
from workers.execution.attempt import Attempt
from workers.security.request import Received


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
            # Whoever sends a message to this process asks it to run that.
            app.own.add([Identity(claim.id, request.tenant)])
        if isinstance(claim, Claimed):
            self.attempt = Attempt(app, request, claim)
            app.running.begin(self.attempt)  # from here on its lease is renewed


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
