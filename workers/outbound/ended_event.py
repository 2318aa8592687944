"""The event for the end of an execution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dspex import ExecutionCompleted, ExecutionFailed, ExecutionStatus
from dspex.contract.events import Event, ExecutionCancelled, ExecutionEnded
from store.executions import Execution, Finish

Ended = ExecutionCompleted | ExecutionFailed | ExecutionCancelled

_STATUSES: Final[dict[type[Event], ExecutionStatus]] = {
    ExecutionCompleted: ExecutionStatus.COMPLETED,
    ExecutionFailed: ExecutionStatus.FAILED,
    ExecutionCancelled: ExecutionStatus.CANCELLED,
}


def event_of(ended: Finish | Execution, attempt: int, metadata: Mapping[str, str]) -> Ended:
    """The event for the exchange of events and for webhooks.

    Args:
        attempt: the number of the last attempt.
        metadata: the metadata of the execution.
    """
    common = {
        "execution_id": ended.id,
        "program_id": ended.program_id,
        "attempt": attempt,
        "duration_ms": ended.duration_ms or 0.0,
        "usage": ended.usage,
        "metadata": dict(metadata),
    }
    if ended.status == ExecutionStatus.CANCELLED:
        return ExecutionCancelled.model_validate(common)
    if ended.error is None:
        made: dict[str, object] = {"outputs": dict(ended.outputs or {})}
        if ended.extra_outputs:
            made["extra_outputs"] = dict(ended.extra_outputs)
        return ExecutionCompleted.model_validate(common | made)
    return ExecutionFailed.model_validate(common | {"error": ended.error})


def reference(event: Ended) -> ExecutionEnded:
    """The reference that replaces an event: the execution's id and status."""
    return ExecutionEnded(
        execution_id=event.execution_id,
        program_id=event.program_id,
        status=_STATUSES[type(event)],
        error_code=event.error.code if isinstance(event, ExecutionFailed) else None,
        attempt=event.attempt,
        duration_ms=event.duration_ms,
        metadata=event.metadata,
    )
