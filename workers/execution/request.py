"""Converts a request from its message to the store."""

from __future__ import annotations

from dspex import ExecuteProgram
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
