"""An answer of each kind, as a worker may give it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from pydantic import BaseModel

from dspex import (
    LM,
    Configuration,
    ErrorCode,
    ErrorDetail,
    ExecutionOptions,
    ExecutionStatus,
    Fallback,
    LMCall,
    ProgramStatus,
    Signature,
    SignatureStatus,
    State,
    Try,
    Usage,
)
from dspex.contract.backlog import Backlog, BacklogView, By, Holder
from dspex.contract.callback import Callback
from dspex.contract.events import ProblemDetail
from dspex.contract.gates import GateKind, GateView, Limits, Paused, Scope
from dspex.contract.options import Lane
from dspex.contract.queries import ExecutionCounts
from dspex.contract.results import (
    Affected,
    Answer,
    Created,
    DeliveryAttempt,
    DeliveryView,
    EndpointView,
    ExecutionView,
    Nothing,
    Page,
    ProgramPrompt,
    ProgramStatistics,
    ProgramStats,
    ProgramView,
    RejectedMessageView,
    Replayed,
    SignatureList,
    SignatureSchema,
    SignatureView,
    Transition,
    Waiting,
)
from dspex.contract.status import DeadLetterStatus, DeliveryStatus
from dspex.contract.trace import ExecutionTrace, TraceStep
from dspex.contract.workers import Serves, WorkerView
from dspex.signatures.compatibility import compare

ID, OTHER = UUID("0190f6a0-0000-7000-8000-000000000000"), UUID("0190f6a0-0000-7000-8000-000000000001")
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

SIGNATURE = Signature.parse(
    {
        "name": "Triage",
        "module": "acme.signatures.Triage",
        "version": "1.2.0",
        "instructions": "Judge how urgent a ticket is.",
        "inputs": [
            {"name": "ticket", "type": "str", "description": "what the customer wrote"},
            {"name": "tags", "type": "Optional[list[str]]"},
            {"name": "k", "type": {"type": "integer", "minimum": 1, "multipleOf": 2}, "default": 4},
        ],
        "outputs": [
            {"name": "urgency", "type": {"type": "string", "enum": ["low", "high"]}},
            {"name": "scores", "type": "dict[str, float]"},
            {
                "name": "parts",
                "type": {
                    "type": "object",
                    "properties": {"flag": {"type": "boolean"}, "one": {"enum": ["a", 1, True]}},
                    "required": ["flag"],
                },
            },
        ],
    }
)
STATE = State.model_validate(
    {
        "signature_digest": SIGNATURE.digest,
        "module": "ChainOfThought",
        "predictors": {
            "predict": {
                "demos": [{"ticket": "t", "augmented": True}],
                "signature": {"instructions": "Judge.", "fields": [{"prefix": "Ticket:", "description": "${ticket}"}]},
            }
        },
    }
)
CONFIGURATION = Configuration(
    module="ChainOfThought",
    parameters={"temperature": 0.5},
    lm=LM.model_validate({"model": "openai/gpt-4o-mini", "secret": "A_API_KEY", "parameters": {"stop": ["x"]}}),
    state=STATE,
    fallbacks=(Fallback(on=(ErrorCode.TIMEOUT,), adapter_type="mock", parameters={"a": None}),),
)
ERROR = ErrorDetail(
    code="invalid_input", message="k: is missing", problems=(ProblemDetail(field="k", message="is missing"),)
)
USAGE = Usage(
    calls=2,
    input_tokens=3,
    output_tokens=4,
    cost=0.5,
    lm_calls=(LMCall(model="m", input_tokens=3, output_tokens=4, cost=0.5, cached=True),),
    tries=(Try(adapter_type="mock", model="m", error="timeout", calls=1), Try(adapter_type="native", calls=1)),
)

SIGNATURE_VIEW = SignatureView(
    signature_id=ID,
    signature=SIGNATURE,
    status=SignatureStatus.ACTIVE,
    digest=SIGNATURE.digest,
    compatibility=compare(Signature.parse("ticket, old -> urgency"), SIGNATURE),
    lock_version=1,
    inserted_at=AT,
    updated_at=AT,
)
PROGRAM_VIEW = ProgramView(
    program_id=ID,
    name="triage",
    signature_id=OTHER,
    adapter_type="mock",
    configuration=CONFIGURATION,
    status=ProgramStatus.ERROR,
    backend_id="mock-1",
    error=ERROR,
    execution_count=7,
    last_executed_at=AT,
    lock_version=2,
    inserted_at=AT,
    updated_at=AT,
)
EXECUTION_VIEW = ExecutionView(
    execution_id=ID,
    program_id=OTHER,
    status=ExecutionStatus.FAILED,
    inputs={"ticket": "é", "k": 2},
    outputs=None,
    error=ERROR,
    options=ExecutionOptions(seed=7),
    attempt=2,
    duration_ms=1.5,
    usage=USAGE,
    backend_id="mock-1",
    worker="host:1",
    source="/orders",
    cancel_requested=False,
    timeline=(Transition(status="running", at=AT, attempt=1, by="host:1"),),
    inserted_at=AT,
    executed_at=AT,
    finished_at=AT,
    lock_version=3,
)
WAITING_VIEW = EXECUTION_VIEW.model_copy(
    update={
        "status": ExecutionStatus.PENDING,
        "waiting": Waiting(since=AT, lane=Lane.BULK, reason="limit", held_by="lm fast", ahead=7, expected_seconds=9.5),
    }
)
CALLBACK = Callback(url="https://receiver.example/hook", secret="A_WEBHOOK_SECRET", events=("failed",), thin=True)
ENDPOINT_VIEW = EndpointView(
    endpoint_id=ID,
    callback=CALLBACK,
    registered=True,
    enabled=False,
    disabled_reason="it answered 410",
    disabled_at=AT,
    failing_since=AT,
    previous_secret="B_WEBHOOK_SECRET",
    previous_until=AT,
    lock_version=2,
    inserted_at=AT,
    updated_at=AT,
)
DELIVERY_VIEW = DeliveryView(
    delivery_id=ID,
    endpoint_id=OTHER,
    execution_id=ID,
    event_id="0190f6a0-0000-7000-8000-000000000000.3",
    event="failed",
    host="receiver.example:443",
    status=DeliveryStatus.PENDING,
    attempts=1,
    due_at=AT,
    reason="it answered 503",
    log=(
        DeliveryAttempt(
            number=1,
            at=AT,
            outcome="failed",
            http_status=503,
            reason="it answered 503",
            duration_ms=1.5,
            response="busy",
        ),
    ),
    lock_version=2,
    inserted_at=AT,
    finished_at=None,
)
REJECTED_MESSAGE_VIEW = RejectedMessageView(
    rejection_id=ID,
    status=DeadLetterStatus.DEAD,
    queue="dspex.executions",
    error=ERROR,
    message_id="m",
    message_type=None,
    body="{",
    body_encoding="utf-8",
    body_size=1,
    deliveries=2,
    inserted_at=AT,
    updated_at=AT,
)

_BACKLOG = Backlog(
    tenant="acme",
    program_id=ID,
    name="triage",
    lane=Lane.BULK,
    waiting=3,
    running=1,
    oldest_at=AT,
    came_per_minute=2.5,
    went_per_minute=1.5,
    expected_seconds=120.0,
    held_by=(Holder(scope="lm fast", paused=True),),
)

WORKER_VIEW = WorkerView(
    name="host-1-a",
    host="host",
    pid=1,
    version="0.1.0",
    state="working",
    serves=Serves(lanes=(Lane.HIGH,), environments=("rag", "-")),
    places=64,
    taken=7,
    started_at=AT,
    seen_at=AT,
)
GATE_VIEW = GateView(
    scope=Scope(kind=GateKind.LM, name="fast"),
    shared=True,
    paused=Paused(by="ops", at=AT, reason="it is down"),
    limits=Limits(in_flight=40, least_in_flight=4, tokens_per_minute=400_000),
    in_flight=3,
    allowed=20,
    closed_until=AT,
)

AN_ANSWER_OF_EACH: list[BaseModel] = [
    Nothing(),
    Answer(value=True),
    SIGNATURE_VIEW,
    SignatureSchema(
        signature_id=ID,
        name=SIGNATURE.name,
        version=SIGNATURE.version,
        status=SignatureStatus.ACTIVE,
        digest=SIGNATURE.digest,
        inputs=SIGNATURE.input_schema(),
        outputs=SIGNATURE.output_schema(),
    ),
    SignatureList(signatures=(SIGNATURE_VIEW,)),
    PROGRAM_VIEW,
    Created(program=PROGRAM_VIEW, signature=SIGNATURE_VIEW),
    ProgramStats(
        program_id=ID,
        name="triage",
        status=ProgramStatus.READY,
        execution_count=7,
        last_executed_at=None,
        adapter_type="mock",
        backend_id=None,
    ),
    ProgramPrompt(
        program_id=ID, backend_id="native-1", model="openai/gpt-4o-mini", messages=({"role": "user", "content": "why"},)
    ),
    ProgramStatistics(
        program_id=ID,
        since=AT,
        until=None,
        total=3,
        successful=1,
        failed=1,
        cancelled=1,
        success_rate=0.5,
        average_duration_ms=1.5,
        p50_duration_ms=1.0,
        p95_duration_ms=None,
        input_tokens=3,
        output_tokens=4,
        cost=0.25,
        last_executed_at=AT,
    ),
    EXECUTION_VIEW,
    WAITING_VIEW,
    ExecutionTrace(
        execution_id=ID,
        attempt=2,
        steps=(TraceStep(kind="tool", name="search", details={"result": [1, None]}, duration_ms=1.5),),
        shortened=False,
        inserted_at=AT,
    ),
    ExecutionCounts(pending=1, failed=99_999, complete=False, oldest=AT),
    compare(Signature.parse("ticket, old -> urgency"), SIGNATURE),
    Page[SignatureView](items=(SIGNATURE_VIEW,), next_cursor="c"),
    Page[ProgramView](items=(PROGRAM_VIEW,)),
    Page[ExecutionView](items=(EXECUTION_VIEW,)),
    ENDPOINT_VIEW,
    Page[EndpointView](items=(ENDPOINT_VIEW,)),
    DELIVERY_VIEW,
    Page[DeliveryView](items=(DELIVERY_VIEW,)),
    Replayed(count=2),
    REJECTED_MESSAGE_VIEW,
    Page[RejectedMessageView](items=(REJECTED_MESSAGE_VIEW,)),
    Affected(count=2, refused=1),
    BacklogView(by=By.PROGRAM, total=_BACKLOG, items=(_BACKLOG,), next_cursor="n"),
    GATE_VIEW,
    Page[GateView](items=(GATE_VIEW,), next_cursor="lm:*:fast"),
    Page[WorkerView](items=(WORKER_VIEW,), next_cursor="host-1-a"),
]
