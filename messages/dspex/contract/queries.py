"""The queries: commands that change nothing. Their answers go to the reply queue."""

from __future__ import annotations

from uuid import UUID

from pydantic import AwareDatetime, JsonValue, StrictBool, model_validator

from dspex.contract.commands import Command, IdempotencyKey, ModuleReference
from dspex.contract.options import Metadata
from dspex.contract.results import (
    Answer,
    DeliveryView,
    EndpointView,
    ExecutionView,
    Page,
    ProgramPrompt,
    ProgramStatistics,
    ProgramStats,
    ProgramView,
    RejectedMessageView,
    SignatureSchema,
    SignatureView,
)
from dspex.contract.selections import Cursor, ErrorCodeName, Limit, QueueName
from dspex.contract.status import DeadLetterStatus, DeliveryStatus, ExecutionStatus, ProgramStatus, SignatureStatus
from dspex.contract.trace import ExecutionTrace
from dspex.model import Frozen
from dspex.scalars import Moment, Until
from dspex.signatures.compatibility import Compatibility


class Query(Command):
    """Base of the queries."""


class GetSignature(Query):
    """One signature."""

    type = "dspex.signature.get.v1"
    answer = SignatureView

    signature_id: UUID


class GetSignatureSchema(Query):
    """The JSON Schemas of a signature, by its id, or of the newest active one with a name."""

    type = "dspex.signature.schema.v1"
    answer = SignatureSchema

    signature_id: UUID | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> GetSignatureSchema:
        if (self.signature_id is None) == (self.name is None):
            raise ValueError("give signature_id or name, one of them")
        return self


class ListSignatures(Query):
    """Signatures, newest first."""

    type = "dspex.signature.list.v1"
    answer = Page[SignatureView]

    name: str | None = None
    status: SignatureStatus | None = None
    module: str | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class CompareSignatures(Query):
    """What changed from one signature to another, field by field, and whether callers of the old one still work."""

    type = "dspex.signature.compare.v1"
    answer = Compatibility

    old_id: UUID
    new_id: UUID


class ValidateModule(Query):
    """Whether a module can be read and contains DSPy signatures. Never imports outside the operator's allow-list."""

    type = "dspex.signature.validate_module.v1"
    answer = Answer

    module: ModuleReference


class GetProgram(Query):
    """One program."""

    type = "dspex.program.get.v1"
    answer = ProgramView

    program_id: UUID


class ListPrograms(Query):
    """Programs, newest first. With `archived: false`, those that are not archived."""

    type = "dspex.program.list.v1"
    answer = Page[ProgramView]

    name: str | None = None
    status: ProgramStatus | None = None
    archived: StrictBool | None = None
    signature_id: UUID | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class GetProgramStats(Query):
    """A program and the main figures of its executions."""

    type = "dspex.program.stats.v1"
    answer = ProgramStats

    program_id: UUID


class GetProgramStatistics(Query):
    """Statistics of a program's executions, of all time or of a window of time."""

    type = "dspex.program.statistics.v1"
    answer = ProgramStatistics

    program_id: UUID
    since: Moment | None = None
    until: Until | None = None


class GetProgramPrompt(Query):
    """What a program would send to its LM for these inputs: the messages of its first call, which is not made.

    The program is built and run until then, so what its module does before (a retriever, a tool) is done.
    """

    type = "dspex.program.prompt.v1"
    answer = ProgramPrompt

    program_id: UUID
    inputs: dict[str, JsonValue]


class GetExecution(Query):
    """One execution, by its id or by its idempotency key."""

    type = "dspex.execution.get.v1"
    answer = ExecutionView

    execution_id: UUID | None = None
    idempotency_key: IdempotencyKey | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> GetExecution:
        if (self.execution_id is None) == (self.idempotency_key is None):
            raise ValueError("give execution_id or idempotency_key")
        return self


class GetExecutionTrace(Query):
    """The steps of an execution: prompts, answers, tools. Only of one that was asked to keep them."""

    type = "dspex.execution.trace.v1"
    answer = ExecutionTrace

    execution_id: UUID


class ListExecutions(Query):
    """Executions, newest first. Dead letters are the failed ones that were not discarded.

    With `metadata`, those with all these values by name; others may be there, too. Such a page looks through at most
    20,000 executions. If it ends there, it has fewer items than `limit`, or none, and a `next_cursor` to go on.
    """

    type = "dspex.execution.list.v1"
    answer = Page[ExecutionView]

    program_id: UUID | None = None
    status: ExecutionStatus | None = None
    error_code: ErrorCodeName | None = None
    discarded: StrictBool | None = None
    metadata: Metadata | None = None
    since: Moment | None = None
    until: Until | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class ExecutionCounts(Frozen):
    """How many executions there are, by status: of the newest 100,000 at most.

    `complete`: there were no more than that. `oldest` is when the oldest that was looked at was inserted; null: there
    was none.
    """

    pending: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    complete: bool
    oldest: AwareDatetime | None


class CountExecutions(Query):
    """How many executions there are, by status: of a program, or of the tenant.

    With `error_code`, those that failed with it, and those that wait for another attempt after it. With `metadata`,
    those with all these values by name.
    """

    type = "dspex.execution.count.v1"
    answer = ExecutionCounts

    program_id: UUID | None = None
    error_code: ErrorCodeName | None = None
    metadata: Metadata | None = None
    since: Moment | None = None
    until: Until | None = None


class GetRejectedMessage(Query):
    """One message that was rejected."""

    type = "dspex.message.get.v1"
    answer = RejectedMessageView

    rejection_id: UUID


class ListRejectedMessages(Query):
    """Rejected messages, newest first. Dead letters are those with status `dead`."""

    type = "dspex.message.list.v1"
    answer = Page[RejectedMessageView]

    status: DeadLetterStatus | None = None
    error_code: ErrorCodeName | None = None
    queue: QueueName | None = None
    since: Moment | None = None
    until: Until | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class GetEndpoint(Query):
    """One endpoint of webhooks."""

    type = "dspex.webhook.get.v1"
    answer = EndpointView

    endpoint_id: UUID


class ListEndpoints(Query):
    """Endpoints of webhooks, newest first; with `registered: false`, those from callbacks."""

    type = "dspex.webhook.list.v1"
    answer = Page[EndpointView]

    registered: StrictBool = True
    enabled: StrictBool | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class GetDelivery(Query):
    """One delivery of a webhook, with every attempt."""

    type = "dspex.delivery.get.v1"
    answer = DeliveryView

    delivery_id: UUID


class ListDeliveries(Query):
    """Deliveries of webhooks, newest first."""

    type = "dspex.delivery.list.v1"
    answer = Page[DeliveryView]

    endpoint_id: UUID | None = None
    execution_id: UUID | None = None
    status: DeliveryStatus | None = None
    since: Moment | None = None
    until: Until | None = None
    limit: Limit = 50
    cursor: Cursor | None = None
