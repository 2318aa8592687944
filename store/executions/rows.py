"""What goes into an execution's row, what comes out of it, and what a claim may come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, Usage
from dspex.contract.callback import Callback
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.ids import DEFAULT_TENANT, digest
from store.database.batch import moment
from store.database.identity import Identified, Identity
from store.executions import timeline
from store.executions.timeline import TimelineEntry


@dataclass(frozen=True)
class Request(Identified):
    """What is asked for: the body of an execute command, with where it came from."""

    id: UUID
    program_id: UUID
    inputs: Mapping[str, Any]
    options: ExecutionOptions
    source: str
    traceparent: str | None = None
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    callback: Callback | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same request, also as it is read from the database. Another one is a conflict.

        What is not set does not change it, so that what is added later does not either. Metadata and extension
        attributes are no part of what is asked: the first request's are kept.
        """
        asked = {
            "program": self.program_id.hex,
            "inputs": _exact(self.inputs),
            "options": self.options.model_dump(mode="json"),
        }
        return digest(asked if self.callback is None else asked | {"callback": kept_callback(self.callback)})


def kept_callback(callback: Callback | None) -> dict[str, Any] | None:
    """A callback as it is kept: what is not the default."""
    return None if callback is None else callback.model_dump(mode="json", exclude_defaults=True)


def callback_of(value: dict[str, Any] | None) -> Callback | None:
    """A callback that was kept."""
    return None if value is None else Callback(**value)


def _exact(value: Any) -> Any:
    """JSON values with whole numbers as integers: PostgreSQL keeps 1e16 as 10000000000000000, and -0.0 as 0.0."""
    kind = type(value)
    if kind is str or kind is int:  # most are: the other questions cost more
        return value
    if kind is list or kind is tuple:
        return [_exact(item) for item in value]
    if kind is float:
        return int(Decimal(repr(value))) if value.is_integer() else value
    if kind is dict or isinstance(value, Mapping):
        return {key: _exact(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Carried:
    """What the attempts of an execution leave to the next one.

    Attributes:
        waits, waited: how often, and for how many seconds in all, it waited for a rate limit. What was asked for when
            it is written, what has elapsed on the database's clock when it is claimed.
        repaired: whether it was run again for an answer that could not be used.
    """

    waits: int = 0
    waited: float = 0.0
    repaired: bool = False


@dataclass(frozen=True)
class Claimed:
    """The execution is this worker's to run.

    Attributes:
        id: the request's, or that of the first request with its idempotency key.
        backend_id: None where the program is not ready.
        cancel_requested: it was asked to stop while an earlier worker ran it; end it as cancelled.
        policy: the program's.
        usage: what the attempts before used.
        lost: how many attempts ended with their worker.
        seconds_left: until its deadline, where it has one; not above zero: do not run it.
        answered: whether somebody waits for an answer.
        metadata, extensions: as the row has them, of the first request with this id.
    """

    id: UUID
    attempt: int
    lock_version: int
    backend_id: str | None
    cancel_requested: bool = False
    policy: ExecutionPolicy = field(default_factory=ExecutionPolicy, compare=False)
    usage: Usage = field(default_factory=Usage, compare=False)
    carried: Carried = field(default_factory=Carried, compare=False)
    lost: int = 0
    seconds_left: float | None = None
    answered: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    extensions: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Waiting:
    """It is pending, and not due yet: scheduled, between two attempts, or just being taken by somebody else.

    The relay publishes it when it is.
    """

    id: UUID


@dataclass(frozen=True)
class Running:
    """Another worker has it, and its lease has not run out."""

    id: UUID


@dataclass(frozen=True)
class Ended:
    """It has run already, or was cancelled."""

    execution: Execution


@dataclass(frozen=True)
class Conflicting:
    """The id, or the idempotency key, belongs to another request."""

    id: UUID
    by_key: bool = False


@dataclass(frozen=True)
class NoProgram:
    """There is no such program, or not any more."""

    id: UUID


EndKey = tuple[Identity, int, str]

Claim = Claimed | Waiting | Running | Ended | Conflicting | NoProgram


@dataclass(frozen=True)
class Execution(Identified):
    """A row, as it is read."""

    id: UUID
    program_id: UUID
    status: ExecutionStatus
    inputs: dict[str, Any]
    options: ExecutionOptions
    outputs: dict[str, Any] | None
    error: ErrorDetail | None
    usage: Usage
    duration_ms: float | None
    attempt: int
    backend_id: str | None
    worker: str | None
    source: str
    traceparent: str | None
    inserted_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lock_version: int
    tenant: str
    cancel_requested: bool
    timeline: tuple[TimelineEntry, ...]
    not_before: datetime | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    discarded: bool = False
    callback: Callback | None = None
    program_callback: Callback | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finish(Identified):
    """The end of an execution that was claimed: outputs, or an error, or cancelled (then an error may say why).

    Attributes:
        duration_ms: of its last attempt; None: that never ran, and is in no duration.
        answered: whether somebody waits for an answer.
        attempt: how many attempts were started; None: the claim's too.
    """

    id: UUID
    program_id: UUID
    lock_version: int
    duration_ms: float | None
    usage: Usage
    outputs: Mapping[str, Any] | None = None
    error: ErrorDetail | None = None
    cancelled: bool = False
    tenant: str = DEFAULT_TENANT
    answered: bool = False
    attempt: int | None = None

    @property
    def status(self) -> ExecutionStatus:
        if self.cancelled:
            return ExecutionStatus.CANCELLED
        return ExecutionStatus.COMPLETED if self.error is None else ExecutionStatus.FAILED

    @property
    def key(self) -> EndKey:
        """What there is once: one claim ends in one way."""
        return self.identity, self.lock_version, self.status


@dataclass(frozen=True)
class Retry(Identified):
    """The end of an attempt after which there is another: pending, and due in `delay` seconds.

    Attributes:
        attempt: how many attempts are spent.
        usage: of all attempts so far.
    """

    id: UUID
    lock_version: int
    delay: float
    attempt: int
    error: ErrorDetail
    usage: Usage
    carried: Carried
    tenant: str = DEFAULT_TENANT

    @property
    def key(self) -> EndKey:
        """What there is once, as `Finish.key`."""
        return self.identity, self.lock_version, ExecutionStatus.PENDING


@dataclass(frozen=True)
class Lease:
    """Who claims, and for how many seconds a claim holds without a heartbeat."""

    worker: str
    seconds: float


def execution_of(row: Any) -> Execution:
    """The execution of a row with all its columns."""
    return Execution(
        id=row.id,
        program_id=row.program_id,
        status=ExecutionStatus(row.status),
        inputs=row.inputs,
        options=ExecutionOptions(**row.options),
        outputs=row.outputs,
        error=ErrorDetail(**row.error) if row.error else None,
        usage=Usage(**(row.usage or {})),
        duration_ms=row.duration_ms,
        attempt=row.attempt,
        backend_id=row.backend_id,
        worker=row.worker,
        source=row.source,
        traceparent=row.traceparent,
        inserted_at=row.inserted_at,
        updated_at=row.updated_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        lock_version=row.lock_version,
        tenant=row.tenant,
        cancel_requested=row.cancel_requested,
        timeline=timeline.read(row.timeline),
        not_before=row.not_before,
        reply_to=row.reply_to,
        correlation_id=row.correlation_id,
        discarded=row.discarded,
        callback=callback_of(row.callback),
        program_callback=callback_of(row.program_callback),
        metadata=row.metadata or {},
        extensions=row.extensions or {},
    )


KEPT = tuple(field.name for field in fields(Request) if field.name != "idempotency_key")
"""The columns that keep a request. Its idempotency key is kept with the id that it stands for."""


def row_of(request: Request) -> dict[str, Any]:
    """A request, as the statements take it. What is rare is left out where there is none, which reads as NULL."""
    row: dict[str, Any] = {
        "id": request.id,
        "program_id": request.program_id,
        "inputs": dict(request.inputs),
        "options": request.options.model_dump(mode="json"),
        "request_digest": request.digest,
        "source": request.source,
        "traceparent": request.traceparent,
        "tenant": request.tenant,
        "not_before": moment(request.options.not_before),
        "deadline": moment(request.options.deadline),
        "reply_to": request.reply_to,
        "correlation_id": request.correlation_id,
        "callback": kept_callback(request.callback),
    }
    if request.metadata:
        row["metadata"] = dict(request.metadata)
    if request.extensions:
        row["extensions"] = dict(request.extensions)
    return row


def request_of(row: Any) -> Request:
    """The request that a row was made of, from its columns `KEPT`."""
    return Request(
        id=row.id,
        program_id=row.program_id,
        inputs=row.inputs,
        options=ExecutionOptions(**row.options),
        source=row.source,
        traceparent=row.traceparent,
        tenant=row.tenant,
        reply_to=row.reply_to,
        correlation_id=row.correlation_id,
        callback=callback_of(row.callback),
        metadata=row.metadata or {},
        extensions=row.extensions or {},
    )
