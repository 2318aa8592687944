"""Converts a request from its message to the store, and back. There is one place for each direction.

If a member is forgotten here, every attempt after the first is another request, and so a conflict.
"""

from __future__ import annotations

from dspex import ExecuteProgram
from dspex.contract.envelope import Envelope, wrap
from store.executions import Request
from workers.security.request import Received


def request_of(received: Received[ExecuteProgram]) -> Request:
    """The request for the store, from a command."""
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
        requested_at=received.requested_at,
    )


def envelope_of(request: Request) -> Envelope[ExecuteProgram]:
    """The message that repeats the request in a row.

    It is a message of the workers, so the answer goes only to the reply queue in the row. It needs no idempotency key,
    as it has the id of the row.
    """
    command = ExecuteProgram(
        execution_id=request.id,
        program_id=request.program_id,
        inputs=dict(request.inputs),
        options=request.options,
        callback=request.callback,
        metadata=dict(request.metadata) or None,
    )
    return wrap(
        command,
        source=request.source,
        traceparent=request.traceparent,
        tenant=request.tenant,
        extensions=request.extensions,
    )
