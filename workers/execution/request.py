"""A request between its message and the store: the one place for each direction.

What is forgotten here makes every attempt after the first another request, which is a conflict.
"""

from __future__ import annotations

from dspex import ExecuteProgram
from dspex.contract.envelope import Envelope, wrap
from store.executions import Request
from workers.security.request import Received


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


def envelope_of(request: Request) -> Envelope[ExecuteProgram]:
    """The message that asks again for what a row keeps.

    It is the workers' own message: nobody is answered by it but who is named in the row. The idempotency key led to
    the row already.
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
