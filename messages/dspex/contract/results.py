"""The answers to commands and queries: views of entities, and other results."""

from __future__ import annotations

import operator
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field, JsonValue

from dspex.contract.callback import Callback, CallbackEvent
from dspex.contract.configuration import Configuration
from dspex.contract.events import ErrorDetail, Extras, Usage
from dspex.contract.options import ExecutionOptions, Lane
from dspex.contract.retry_policy import ExecutionPolicy
from dspex.contract.status import DeadLetterStatus, DeliveryStatus, ExecutionStatus, ProgramStatus, SignatureStatus
from dspex.errors import DspexError, Problem
from dspex.model import Frozen
from dspex.signatures.compatibility import Compatibility
from dspex.signatures.signature import StoredSignature

Item = TypeVar("Item")


Warnings = Annotated[
    tuple[str, ...],
    Field(
        exclude_if=operator.not_,
        description="of a signature that was just given as another JSON Schema or as a class: what is lost of it",
    ),
]


class Nothing(Frozen):
    """An empty answer."""


class Page(Frozen, Generic[Item]):
    """A page of a list, newest first. `next_cursor` requests the next page; it is null on the last."""

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
    warnings: Warnings = ()


class SignatureSchema(Frozen):
    """The JSON Schemas (2020-12) of a signature: one for the object of inputs, one for the object of outputs."""

    signature_id: UUID
    name: str
    version: str
    status: SignatureStatus
    digest: str
    description: str | None = None
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue]


class SignatureList(Frozen):
    """Several signatures."""

    signatures: tuple[SignatureView, ...]


class ProgramCode(Frozen):
    """The code of a module of one's own, as the worker that answers has it.

    Attributes:
        module: `package.module:name`.
        distribution, version: what it was installed by; null for files that belong to none, or to several.
        digest: of the source files of its package.
        built: whether the program was built with this code. If not, initialize it to run it on this code.
    """

    module: str
    distribution: str | None = None
    version: str | None = None
    digest: str
    built: bool


class ProgramView(Frozen):
    """A program. `code`: of one that is asked for by its id; absent where the worker that answers does not have it."""

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
    code: ProgramCode | None = Field(default=None, exclude_if=operator.not_)
    execution_count: int
    last_executed_at: AwareDatetime | None
    lock_version: int
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
    warnings: Warnings = ()


class ProgramPrompt(Frozen):
    """What the first LM call of a program would send for some inputs. Each message has a `role` and a `content`."""

    program_id: UUID
    backend_id: str
    model: str
    messages: tuple[dict[str, JsonValue], ...]


class Created(Frozen):
    """A program and its signature."""

    program: ProgramView
    signature: SignatureView


class ProgramStats(Frozen):
    """A program and the main figures of its executions."""

    program_id: UUID
    name: str
    status: ProgramStatus
    execution_count: int
    last_executed_at: AwareDatetime | None
    adapter_type: str
    backend_id: str | None


class ProgramStatistics(Frozen):
    """Statistics of a program's executions: of all time, or of those that began within a window.

    Durations are in milliseconds, over executions that ran. Percentiles of all time are accurate to 10 %. Tokens and
    cost (in US dollars) are sums over the executions for which they are known: `tokens_known` and `cost_known` of
    `total` (null: an older worker answered, which does not count these). `name` is null if the program was destroyed;
    its statistics stay.
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
    """A change of an execution's status, or a mark (`cancel_requested`, `discarded`): when, which attempt, by whom."""

    status: str
    at: AwareDatetime
    attempt: int
    by: str | None = None


class Waiting(Frozen):
    """What a pending execution waits for.

    Attributes:
        since: when it became pending.
        reason: `place`: no worker has a free one for it; `not_before` and `retry`: its time has not come; `paused` and
            `limit`: `held_by` says by what, such as `lm fast`.
        ahead: how many of its queue come first, about.
        expected_seconds: until it runs, about; null: nothing of its program and lane has gone for a minute.
        unserved: what no live worker serves of it: `lane bulk`, `adapter native`, `environment rag`, `program ID`;
            some of them, if no worker serves all; `anything`, if none lives.
    """

    since: AwareDatetime
    lane: Lane
    reason: Literal["place", "not_before", "retry", "paused", "limit"]
    held_by: str | None = None
    ahead: int | None = None
    expected_seconds: float | None = None
    unserved: str | None = None


class ExecutionView(Frozen):
    """An execution.

    While it is pending or running again, `error` is the error of its last attempt, and `not_before` the earliest start
    of the next. A failed execution is a dead letter until it is replayed or `discarded`. `callback` is its own, or else
    the program's at the time of the claim. `requested_at` is the `time` of the message that asked for it first, by the
    clock of its sender: from then until the first entry of the timeline it waited in a queue. `external` (left out if
    false): a service runs it itself and marks it; no worker does. `waiting`: of a pending one that is asked for by its
    id or key.
    """

    execution_id: UUID
    program_id: UUID
    status: ExecutionStatus
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue] | None
    extra_outputs: Extras = Field(default_factory=dict)
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
    requested_at: AwareDatetime | None = None
    external: bool = Field(default=False, exclude_if=operator.not_)
    waiting: Waiting | None = Field(default=None, exclude_if=operator.not_)
    inserted_at: AwareDatetime
    executed_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    lock_version: int


class ExecutionError(DspexError):
    """An execution ended without outputs. `code` is the code of its error, or `cancelled`.

    Attributes:
        execution: its view.
        problems: the wrong fields, if any.
    """

    def __init__(self, execution: ExecutionView) -> None:
        error = execution.error
        reason = error.message if error else f"it is {execution.status}"
        super().__init__(f"execution {execution.execution_id}: {reason}")
        self.code = error.code if error else str(execution.status)
        self.execution = execution
        self.problems = tuple(Problem(p.field, p.message) for p in error.problems) if error else ()


class RejectedMessageView(Frozen):
    """A rejected message, with the reason. It is a dead letter while its `status` is `dead`.

    `body` is text if it is UTF-8 without U+0000, else base64. It was cut if `body_size`, in bytes, is larger.
    `message_id` and `message_type` are those in the message, if they can be read. `deliveries` counts the rejections;
    the first was at `inserted_at`, and `error` is the reason for the last.
    """

    rejection_id: UUID
    status: DeadLetterStatus
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
    """How many things a command changed, and how many matched its filter but could not be replayed.

    With `next_cursor` it ended at its `limit`: the same command with it as `cursor` goes on.
    """

    count: int
    refused: int = 0
    next_cursor: str | None = None


class Answer(Frozen):
    """Yes or no."""

    value: bool


class EndpointView(Frozen):
    """An endpoint of webhooks.

    A `registered` endpoint receives the ends of all executions of the tenant that match its filter. Any other came with
    the callback of a command or a program, and receives only the ends of those. During a rotation of the secret,
    `previous_secret` signs as well, until `previous_until`. `failing_since` is the time of the first failure after the
    last success.
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

    `outcome` is delivered, failed, throttled, gone, or refused (nothing was sent). `http_status` is None if there was
    no response; `response` is the beginning of its body.
    """

    number: int
    at: AwareDatetime
    outcome: str
    http_status: int | None
    reason: str | None
    duration_ms: float
    response: str


class DeliveryView(Frozen):
    """The delivery of one event to one endpoint.

    `event_id` is the id of the event and the header `webhook-id`. `reason` is the result of the last attempt, or why
    there was none. While the delivery is pending, `due_at` is the earliest time of the next attempt. `log` is only in
    the answer to a query for one delivery.
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
    """How many deliveries became pending again."""

    count: int
