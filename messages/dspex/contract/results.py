"""The answers: what an entity looks like from outside, and what a command or a query gives back."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field, JsonValue

from dspex.contract.callback import Callback, CallbackEvent
from dspex.contract.configuration import Configuration
from dspex.contract.events import ErrorDetail, Usage
from dspex.contract.options import ExecutionOptions
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import DeliveryStatus, ExecutionStatus, LetterStatus, ProgramStatus, SignatureStatus
from dspex.errors import DspexError, Problem
from dspex.model import Frozen
from dspex.signatures.compatibility import Compatibility
from dspex.signatures.signature import StoredSignature

Item = TypeVar("Item")


class Nothing(Frozen):
    """The answer of a command that has none to give."""


class Page(Frozen, Generic[Item]):
    """A page of a list, newest first; `next_cursor` asks for the one after, and is null on the last."""

    items: tuple[Item, ...]
    next_cursor: str | None = None


class SignatureView(Frozen):
    """A signature."""

    signature_id: UUID
    signature: StoredSignature
    status: SignatureStatus
    digest: str
    compatibility: Compatibility | None = Field(
        default=None, description="when it was just created: what it changes against the last version of its module"
    )
    lock_version: int
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class SignatureSchema(Frozen):
    """The JSON Schemas (2020-12) of a signature: of an object of its inputs, and of one of its outputs."""

    signature_id: UUID
    name: str
    version: str
    status: SignatureStatus
    digest: str
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue]


class SignatureList(Frozen):
    """Several signatures."""

    signatures: tuple[SignatureView, ...]


class ProgramView(Frozen):
    """A program."""

    program_id: UUID
    name: str
    signature_id: UUID
    adapter_type: str
    configuration: Configuration
    policy: ExecutionPolicy = ExecutionPolicy()
    callback: Callback | None = None
    status: ProgramStatus
    backend_id: str | None
    error: ErrorDetail | None
    execution_count: int
    last_executed_at: AwareDatetime | None
    lock_version: int
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Created(Frozen):
    """A program and the signature that it was given."""

    program: ProgramView
    signature: SignatureView


class ProgramStats(Frozen):
    """What a program is and has done, in short."""

    program_id: UUID
    name: str
    status: ProgramStatus
    execution_count: int
    last_executed_at: AwareDatetime | None
    adapter_type: str
    backend_id: str | None


class ProgramStatistics(Frozen):
    """Figures over a program's executions: of all time, or of those that began within a window.

    Durations are in milliseconds, of those that ran. Percentiles of all time are within 10 %. Tokens and the cost, in
    US dollars, are sums over the executions that they are known of: `tokens_known` and `cost_known` of `total` (null:
    whoever answered does not count these). `name` is null where the program was destroyed: what it did and cost can
    still be read.
    """

    program_id: UUID
    name: str | None = None
    since: AwareDatetime | None
    until: AwareDatetime | None
    total: int
    successful: int
    failed: int
    cancelled: int
    success_rate: float | None
    average_duration_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    input_tokens: int
    output_tokens: int
    cost: float
    last_executed_at: AwareDatetime | None
    tokens_known: int | None = None
    cost_known: int | None = None


class Transition(Frozen):
    """A change of an execution's status, or `cancel_requested` or `discarded`: when, at which attempt, and by whom."""

    status: str
    at: AwareDatetime
    attempt: int
    by: str | None = None


class ExecutionView(Frozen):
    """An execution.

    While it is pending or runs again, `error` is what its last attempt failed with, and `not_before` when the next one
    may begin. One that failed is a dead letter until it is replayed or `discarded`. `callback` is its own, or else what
    its program had when it was claimed.
    """

    execution_id: UUID
    program_id: UUID
    status: ExecutionStatus
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue] | None
    error: ErrorDetail | None
    options: ExecutionOptions
    attempt: int
    duration_ms: float | None
    usage: Usage
    backend_id: str | None
    worker: str | None
    source: str
    cancel_requested: bool
    discarded: bool = False
    not_before: AwareDatetime | None = None
    callback: Callback | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    timeline: tuple[Transition, ...]
    inserted_at: AwareDatetime
    executed_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    lock_version: int


class ExecutionError(DspexError):
    """An execution ended without outputs; `code` is that of its failure, or `cancelled`.

    Attributes:
        execution: all that is known of it.
        problems: each wrong field, where there are any.
    """

    def __init__(self, execution: ExecutionView) -> None:
        error = execution.error
        reason = error.message if error else f"it is {execution.status}"
        super().__init__(f"execution {execution.execution_id}: {reason}")
        self.code = error.code if error else str(execution.status)
        self.execution = execution
        self.problems = tuple(Problem(p.field, p.message) for p in error.problems) if error else ()


class RejectedMessageView(Frozen):
    """A message that was not taken, with its reason; a dead letter while its `status` is dead.

    `body` is text where it is UTF-8 without U+0000, else base64. It was cut where `body_size`, in bytes, is more.
    `message_id` and `message_type` are what it calls itself, where it can be read that far. `deliveries` counts how
    often it was rejected: first at `inserted_at`, last for the reason in `error`.
    """

    rejection_id: UUID
    status: LetterStatus
    queue: str
    error: ErrorDetail
    message_id: str | None
    message_type: str | None
    body: str
    body_encoding: Literal["utf-8", "base64"]
    body_size: int
    deliveries: int
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Affected(Frozen):
    """How many dead letters a command changed, and how many that its filter found it could not help."""

    count: int
    refused: int = 0


class Answer(Frozen):
    """Yes or no."""

    value: bool


class EndpointView(Frozen):
    """Where webhooks go.

    It was `registered`, and gets every end of the tenant's executions that it wants; or it came with the callback of a
    command or a program, and gets the ends of those. While the secret is being changed, `previous_secret` signs too,
    until `previous_until`. `failing_since` is when it failed first after its last success.
    """

    endpoint_id: UUID
    callback: Callback
    registered: bool
    enabled: bool
    disabled_reason: str | None
    disabled_at: AwareDatetime | None
    failing_since: AwareDatetime | None
    previous_secret: str | None
    previous_until: AwareDatetime | None
    lock_version: int
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class DeliveryAttempt(Frozen):
    """One attempt to deliver a webhook.

    `outcome` is delivered, failed, throttled, gone, or refused (nothing was sent). `http_status` is None where there
    was no answer; `response` is the beginning of its body.
    """

    number: int
    at: AwareDatetime
    outcome: str
    http_status: int | None
    reason: str | None
    duration_ms: float
    response: str


class DeliveryView(Frozen):
    """One event on its way to one endpoint.

    `event_id` is the header `webhook-id`, and the id of the event. `reason` is what the last attempt came to, or why
    there was none. While it is pending, `due_at` is when the next attempt may be made. `log` is in the answer for one
    delivery alone.
    """

    delivery_id: UUID
    endpoint_id: UUID
    execution_id: UUID
    event_id: str
    event: CallbackEvent
    host: str
    status: DeliveryStatus
    attempts: int
    due_at: AwareDatetime | None
    reason: str | None
    log: tuple[DeliveryAttempt, ...] = ()
    lock_version: int
    inserted_at: AwareDatetime
    finished_at: AwareDatetime | None


class Replayed(Frozen):
    """How many deliveries are pending again."""

    count: int
