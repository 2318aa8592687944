"""From the store's rows to the views of the contract."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TypeVar

from dspex import ErrorDetail
from dspex.contract.results import (
    DeliveryAttempt,
    DeliveryView,
    EndpointView,
    ExecutionView,
    Page,
    ProgramView,
    RejectedMessageView,
    SignatureView,
    Transition,
)
from store.database import pages
from store.executions import Execution
from store.programs import Program
from store.rejections import RecordedRejection
from store.signatures import SignatureRow
from store.webhooks import Delivery, Endpoint, LoggedAttempt

Row = TypeVar("Row")
View = TypeVar("View")


def signature_view(row: SignatureRow) -> SignatureView:
    """A signature."""
    return SignatureView(
        signature_id=row.id,
        signature=row.signature,
        status=row.status,
        digest=row.signature.digest,
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )


def program_view(row: Program) -> ProgramView:
    """A program."""
    return ProgramView(
        program_id=row.id,
        name=row.name,
        signature_id=row.signature_id,
        adapter_type=row.adapter_type,
        configuration=row.configuration,
        policy=row.policy,
        callback=row.callback,
        status=row.status,
        backend_id=row.backend_id,
        error=row.error,
        execution_count=row.execution_count,
        last_executed_at=row.last_executed_at,
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )


def execution_view(row: Execution) -> ExecutionView:
    """An execution."""
    return ExecutionView(
        execution_id=row.id,
        program_id=row.program_id,
        status=row.status,
        inputs=row.inputs,
        outputs=row.outputs,
        error=row.error,
        options=row.options,
        attempt=row.attempt,
        duration_ms=row.duration_ms,
        usage=row.usage,
        backend_id=row.backend_id,
        worker=row.worker,
        source=row.source,
        cancel_requested=row.cancel_requested,
        discarded=row.discarded,
        not_before=row.not_before,
        callback=row.callback or row.program_callback,
        metadata=dict(row.metadata),
        timeline=tuple(Transition(status=t.status, at=t.at, attempt=t.attempt, by=t.by) for t in row.timeline),
        inserted_at=row.inserted_at,
        executed_at=row.started_at,
        finished_at=row.finished_at,
        lock_version=row.lock_version,
    )


def rejected_message_view(row: RecordedRejection) -> RejectedMessageView:
    """A rejected message. A body that JSON cannot carry as text is written in base64."""
    text = _text(row.body)
    return RejectedMessageView(
        rejection_id=row.id,
        status=row.status,
        queue=row.queue,
        error=ErrorDetail(code=row.error_code, message=row.error_message),
        message_id=row.message_id,
        message_type=row.message_type,
        body=base64.b64encode(row.body).decode() if text is None else text,
        body_encoding="base64" if text is None else "utf-8",
        body_size=row.body_size,
        deliveries=row.deliveries,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )


def _text(body: bytes) -> str | None:
    try:
        return None if b"\x00" in body else body.decode()
    except UnicodeDecodeError:
        return None


def endpoint_view(row: Endpoint) -> EndpointView:
    """An endpoint."""
    return EndpointView(
        endpoint_id=row.id,
        callback=row.callback,
        registered=row.registered,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        disabled_at=row.disabled_at,
        failing_since=row.failing_since,
        previous_secret=row.previous_secret,
        previous_until=row.previous_until if row.previous_secret else None,
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
    )


def delivery_view(row: Delivery, log: Sequence[LoggedAttempt] = ()) -> DeliveryView:
    """A delivery, with its attempts where they were read."""
    return DeliveryView(
        delivery_id=row.id,
        endpoint_id=row.endpoint_id,
        execution_id=row.execution_id,
        event_id=row.event_id,
        event=row.event,
        host=row.host,
        status=row.status,
        attempts=row.attempts,
        due_at=row.due_at,
        reason=row.reason,
        log=tuple(DeliveryAttempt.model_validate(vars(attempt)) for attempt in log),
        lock_version=row.lock_version,
        inserted_at=row.inserted_at,
        finished_at=row.finished_at,
    )


def page_of(page: pages.Page[Row], view: Callable[[Row], View], of: type[Page[View]]) -> Page[View]:
    """A page of views."""
    return of(items=tuple(map(view, page.items)), next_cursor=page.next_cursor)
