"""The envelope: what is taken from the wire, what is rejected and with which code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from dspex import (
    Configuration,
    CreateProgram,
    CreateSignature,
    Envelope,
    ErrorCode,
    ExecuteProgram,
    ExecutionCompleted,
    ExecutionOptions,
    ExecutionStatus,
    InitializeProgram,
    ProgramStatus,
    Signature,
    Usage,
    decode_command,
    decode_event,
    uuid7,
    wrap,
)
from dspex.contract.backlog import By, GetBacklog
from dspex.contract.callback import Callback
from dspex.contract.commands import (
    ActivateSignature,
    ArchiveProgram,
    CancelExecution,
    Command,
    CreateProgramWithSignature,
    CreateSignatureFromModule,
    DeprecateSignature,
    DestroyProgram,
    DestroySignature,
    ModuleVersion,
    RestoreProgram,
    UpdateProgram,
    UpdateSignature,
)
from dspex.contract.configuration import ConfigurationChange
from dspex.contract.dead_letters import DiscardExecutions, DiscardMessages, ReplayExecutions, ReplayMessages
from dspex.contract.endpoints import (
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    RegisterEndpoint,
    ReplayDeliveries,
    RotateSecret,
    UpdateEndpoint,
)
from dspex.contract.envelope import MAX_MESSAGE_BYTES
from dspex.contract.events import (
    EVENTS,
    ErrorDetail,
    Event,
    ExecutionCancelled,
    ExecutionEnded,
    ExecutionFailed,
    MessageRejected,
    ProgramError,
    ProgramReady,
    Reply,
    WebhookDisabled,
)
from dspex.contract.external import (
    CreateExecution,
    MarkCompleted,
    MarkFailed,
    MarkRunning,
    ReportedError,
    ReportedUsage,
)
from dspex.contract.gates import GateKind, Limits, ListGates, Pause, RemoveLimit, Resume, Scope, SetLimit
from dspex.contract.options import Lane
from dspex.contract.queries import (
    CompareSignatures,
    CountExecutions,
    GetDelivery,
    GetEndpoint,
    GetExecution,
    GetExecutionTrace,
    GetProgram,
    GetProgramPrompt,
    GetProgramStatistics,
    GetProgramStats,
    GetRejectedMessage,
    GetSignature,
    GetSignatureSchema,
    ListDeliveries,
    ListEndpoints,
    ListExecutions,
    ListPrograms,
    ListRejectedMessages,
    ListSignatures,
    ValidateModule,
)
from dspex.contract.requests import REQUESTS
from dspex.contract.selections import CancelExecutions
from dspex.contract.status import DeadLetterStatus, DeliveryStatus
from dspex.contract.workers import ListWorkers
from dspex.errors import InvalidMessage, MalformedMessage, MessageError, MessageTooLarge, UnknownMessageType

ID, OTHER = UUID("0190f6a0-0000-7000-8000-000000000000"), UUID("0190f6a0-0000-7000-8000-000000000001")

IDS = ("execution_id", "program_id", "signature_id", "rejection_id", "endpoint_id", "delivery_id")

CALLBACK = Callback(
    url="https://receiver.example/hook", secret="A_WEBHOOK_SECRET", headers={"Authorization": "A_WEBHOOK_TOKEN"}
)

REPORTED = ReportedUsage(calls=1, input_tokens=3)
NO_LUCK = ReportedError(code=ErrorCode.PERMANENT, message="no luck")
A_COMMAND_OF_EACH = [
    CreateSignature(signature_id=ID, signature=Signature.parse("q, k: int = 3 -> a: Literal['x', 'y']")),
    CreateProgram(program_id=ID, signature_id=OTHER, name="p", adapter_type="mock", configuration=Configuration()),
    InitializeProgram(program_id=ID),
    ExecuteProgram(
        execution_id=ID,
        program_id=OTHER,
        inputs={"q": "é \N{GRINNING FACE}", "n": 1.5, "l": [None, True, {"a": 10**30}]},
        options=ExecutionOptions(seed=7),
    ),
    CreateSignatureFromModule(module="acme.signatures:Triage"),
    UpdateSignature(signature_id=ID, signature=Signature.parse("a -> b")),
    ActivateSignature(signature_id=ID),
    DeprecateSignature(signature_id=ID),
    DestroySignature(signature_id=ID),
    CreateProgramWithSignature(program_id=ID, name="p", signature=OTHER, adapter_type="mock"),
    CreateProgramWithSignature(
        program_id=ID, name="p", signature=ModuleVersion(module="a.b", version="1.0.0"), adapter_type="mock"
    ),
    CreateProgramWithSignature(
        program_id=ID, name="p", signature=Signature.parse("a, k: int = 1 -> b"), adapter_type="mock"
    ),
    UpdateProgram(
        program_id=ID, configuration=ConfigurationChange.to(Configuration(module="ChainOfThought")), lock_version=3
    ),
    ArchiveProgram(program_id=ID),
    CancelExecutions(
        status=ExecutionStatus.PENDING,
        program_id=ID,
        lane=Lane.BULK,
        metadata={"customer": "7"},
        limit=100,
        cursor="from-here",
        dry_run=True,
    ),
    RestoreProgram(program_id=ID),
    DestroyProgram(program_id=ID),
    CancelExecution(execution_id=ID),
    CreateExecution(execution_id=ID, program_id=OTHER, inputs={"q": "é"}, metadata={"batch": "7"}),
    MarkRunning(execution_id=ID, lock_version=1, mark=OTHER, expires_in=60.0),
    MarkCompleted(execution_id=ID, lock_version=2, mark=OTHER, outputs={"a": 1}, usage=REPORTED, duration_ms=1.5),
    MarkFailed(execution_id=ID, lock_version=2, mark=OTHER, error=NO_LUCK),
    GetSignature(signature_id=ID),
    GetSignatureSchema(signature_id=ID),
    GetSignatureSchema(name="qa"),
    ListSignatures(name="n", limit=10),
    CompareSignatures(old_id=ID, new_id=OTHER),
    ValidateModule(module="acme.signatures"),
    GetProgram(program_id=ID),
    ListPrograms(status=ProgramStatus.READY),
    GetProgramStats(program_id=ID),
    GetProgramPrompt(program_id=ID, inputs={"question": "why"}),
    GetProgramStatistics(program_id=ID, since=datetime(2026, 1, 1, tzinfo=UTC)),
    GetExecution(execution_id=ID),
    ListExecutions(program_id=ID, status=ExecutionStatus.CANCELLED, error_code="auth", cursor="c"),
    GetExecutionTrace(execution_id=ID),
    ListExecutions(metadata={"batch": "7"}),
    CountExecutions(program_id=ID, error_code="auth", since=datetime(2026, 1, 1, tzinfo=UTC)),
    GetBacklog(by=By.PROGRAM, program_id=ID, lane=Lane.BULK, limit=3, cursor="c"),
    ReplayExecutions(execution_ids=(ID, OTHER)),
    DiscardExecutions(program_id=ID, error_code="auth", since=datetime(2026, 1, 1, tzinfo=UTC)),
    ReplayMessages(queue="q", until=datetime(2026, 1, 1, tzinfo=UTC)),
    DiscardMessages(rejection_ids=(ID,)),
    GetRejectedMessage(rejection_id=ID),
    ListRejectedMessages(status=DeadLetterStatus.DEAD, error_code="conflict", limit=3),
    RegisterEndpoint(endpoint_id=ID, callback=CALLBACK),
    UpdateEndpoint(endpoint_id=ID, callback=CALLBACK, lock_version=2),
    EnableEndpoint(endpoint_id=ID),
    DisableEndpoint(endpoint_id=ID),
    RotateSecret(endpoint_id=ID, secret="B_WEBHOOK_SECRET", overlap=60.0),
    DeleteEndpoint(endpoint_id=ID),
    ReplayDeliveries(endpoint_id=ID, status=DeliveryStatus.FAILED, since=datetime(2026, 1, 1, tzinfo=UTC)),
    GetEndpoint(endpoint_id=ID),
    ListEndpoints(enabled=False),
    GetDelivery(delivery_id=ID),
    ListDeliveries(endpoint_id=ID, status=DeliveryStatus.PENDING),
    Pause(scope=Scope(kind=GateKind.PROGRAM, name=str(ID)), reason="it is down"),
    Resume(scope=Scope(kind=GateKind.EVERYTHING)),
    SetLimit(scope=Scope(kind=GateKind.LM, name="fast"), limits=Limits(in_flight=40, tokens_per_minute=400_000)),
    RemoveLimit(scope=Scope(kind=GateKind.TENANT)),
    ListGates(kind=GateKind.LANE, paused=True),
    ListWorkers(limit=7),
]

AN_EVENT_OF_EACH = [
    ProgramReady(program_id=ID, name="p", backend_id="mock-1"),
    ProgramError(program_id=ID, name="p", error=ErrorDetail(code="auth", message="no")),
    ExecutionCompleted(
        execution_id=ID, program_id=OTHER, outputs={"a": 1}, attempt=1, duration_ms=1.5, usage=Usage(calls=1)
    ),
    ExecutionFailed(
        execution_id=ID, program_id=OTHER, error=ErrorDetail(code="auth", message="no"), attempt=1, duration_ms=0
    ),
    ExecutionCancelled(execution_id=ID, program_id=OTHER, attempt=0, duration_ms=0),
    ExecutionEnded(
        execution_id=ID, program_id=OTHER, status=ExecutionStatus.FAILED, error_code="auth", attempt=1, duration_ms=2
    ),
    MessageRejected(rejection_id=ID, queue="q", error=ErrorDetail(code="malformed_message", message="no")),
    WebhookDisabled(endpoint_id=ID, tenant="acme", host="receiver.example:443", reason="it answered 410"),
    Reply(answer={"a": [1, None]}),
]


def body(**changes: Any) -> dict[str, Any]:
    """A valid message as a map, with changes; a value of `...` removes the member."""
    message = json.loads(wrap(A_COMMAND_OF_EACH[3], source="/test").encode()) | changes
    return {key: value for key, value in message.items() if value is not ...}


def decode(message: Any) -> Envelope[Command]:
    return decode_command(json.dumps(message).encode())


def test_there_is_one_of_each() -> None:
    assert {command.type for command in A_COMMAND_OF_EACH} == set(REQUESTS)
    assert {event.type for event in AN_EVENT_OF_EACH} == set(EVENTS)


def test_every_id_that_a_command_has_is_of_what_it_is_about() -> None:
    found = {name for command in REQUESTS.values() for name in command.model_fields if name.endswith("_id")}
    assert found == {*IDS, "old_id", "new_id"}  # which are compared


@pytest.mark.parametrize("command", A_COMMAND_OF_EACH, ids=lambda command: command.type)
def test_a_command_comes_back_as_it_was(command: Command) -> None:
    sent = wrap(command, source="/test", traceparent=f"00-{'1' * 32}-{'2' * 16}-01", tracestate="a=b")
    assert decode_command(sent.encode()) == sent
    assert decode_command(sent.encode()).data == command
    assert sent.subject == command.subject
    assert command.subject == next((str(v) for k, v in command if k in IDS and v is not None), None)


@pytest.mark.parametrize("event", AN_EVENT_OF_EACH, ids=lambda event: event.type)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    sent = wrap(event, source="/test")
    assert decode_event(sent.encode()) == sent


def test_what_a_later_version_adds_to_an_event_is_ignored() -> None:
    sent = wrap(AN_EVENT_OF_EACH[2], source="/test")
    later = json.loads(sent.encode())
    later |= {"priority": [1], "data": later["data"] | {"later": 1, "usage": later["data"]["usage"] | {"later": [1]}}}
    assert decode_event(json.dumps(later).encode()) == sent


def test_extension_attributes_are_kept() -> None:
    given: dict[str, Any] = {f"a{number}": number for number in range(12)} | {"partitionkey": "é", "final": True}
    envelope = decode_command(json.dumps(body(**given, nothing=None, sampledrate=3.0)).encode())
    assert envelope.extensions == given | {"sampledrate": 3}
    told = wrap(AN_EVENT_OF_EACH[2], source="/test", extensions=envelope.extensions)
    assert json.loads(told.encode()).items() >= given.items()
    assert decode_event(told.encode()).extensions == envelope.extensions
    assert decode_event(told.encode()) == told
    assert wrap(AN_EVENT_OF_EACH[2], source="/test").extensions == {}


def test_what_is_on_the_wire_is_cloudevents() -> None:
    message = body()
    assert message["specversion"] == "1.0"
    assert message["datacontenttype"] == "application/json"
    assert message["type"] == "dspex.program.execute.v1"
    assert set(message) == {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"}


def test_every_message_has_an_id_of_its_own() -> None:
    assert wrap(A_COMMAND_OF_EACH[2], source="/").id != wrap(A_COMMAND_OF_EACH[2], source="/").id
    assert wrap(A_COMMAND_OF_EACH[2], source="/", message_id="mine").id == "mine"


def test_the_least_that_another_language_must_send_is_enough() -> None:
    message = body(subject=..., time=..., datacontenttype=...)
    assert isinstance(decode(message).data, ExecuteProgram)


def raw(message: dict[str, Any], old: str, new: str) -> bytes:
    text = json.dumps(message)
    assert old in text
    return text.replace(old, new).encode()


DRAMATIQ = {
    "queue_name": "dspex",
    "actor_name": "execute",
    "args": [],
    "kwargs": {},
    "options": {},
    "message_id": "1",
    "message_timestamp": 1,
}
INPUTS = {"execution_id": str(ID), "program_id": str(ID), "inputs": {"a": 12345}}

REJECTED: list[tuple[str, Callable[[], bytes], type[MessageError]]] = [
    ("empty", lambda: b"", MalformedMessage),
    ("garbage", lambda: b"\x80\x04\x95", MalformedMessage),
    ("text", lambda: b"execute", MalformedMessage),
    ("null", lambda: b"null", MalformedMessage),
    ("a list", lambda: b"[]", MalformedMessage),
    ("cut", lambda: json.dumps(body()).encode()[:-1], MalformedMessage),
    ("two", lambda: json.dumps(body()).encode() * 2, MalformedMessage),
    ("a byte order mark", lambda: b"\xef\xbb\xbf" + json.dumps(body()).encode(), MalformedMessage),
    ("UTF-16", lambda: json.dumps(body()).encode("utf-16"), MalformedMessage),
    ("not UTF-8", lambda: raw(body(data=INPUTS), "12345", '"@"').replace(b"@", b"\xff"), MalformedMessage),
    ("half a surrogate pair", lambda: raw(body(data=INPUTS), "12345", '"\\ud800"'), MalformedMessage),
    ("NaN", lambda: raw(body(data=INPUTS), "12345", "NaN"), MalformedMessage),
    ("Infinity", lambda: raw(body(data=INPUTS), "12345", "-Infinity"), MalformedMessage),
    ("endless depth", lambda: raw(body(data=INPUTS), "12345", "[" * 9_999 + "]" * 9_999), MalformedMessage),
    ("a number without end", lambda: raw(body(data=INPUTS), "12345", "9" * 9_999), MalformedMessage),
    ("a Dramatiq message", lambda: json.dumps(DRAMATIQ).encode(), MalformedMessage),
    ("no specversion", lambda: json.dumps(body(specversion=...)).encode(), MalformedMessage),
    ("another specversion", lambda: json.dumps(body(specversion="0.3")).encode(), MalformedMessage),
    ("no type", lambda: json.dumps(body(type=...)).encode(), UnknownMessageType),
    ("a type that is no text", lambda: json.dumps(body(type=["x"])).encode(), UnknownMessageType),
    ("an unknown type", lambda: json.dumps(body(type="dspex.program.delete.v1")).encode(), UnknownMessageType),
    ("an event", lambda: wrap(AN_EVENT_OF_EACH[0], source="/").encode(), UnknownMessageType),
    ("U+0000", lambda: raw(body(data=INPUTS), "12345", '"\\u0000"'), InvalidMessage),
    ("U+0000 in a name", lambda: raw(body(data=INPUTS), '"a"', '"\\u0000"'), InvalidMessage),
    ("no id", lambda: json.dumps(body(id=...)).encode(), InvalidMessage),
    ("an empty id", lambda: json.dumps(body(id="")).encode(), InvalidMessage),
    ("no source", lambda: json.dumps(body(source=...)).encode(), InvalidMessage),
    ("no data", lambda: json.dumps(body(data=...)).encode(), InvalidMessage),
    ("null data", lambda: json.dumps(body(data=None)).encode(), InvalidMessage),
    ("data as text", lambda: json.dumps(body(data=json.dumps(INPUTS))).encode(), InvalidMessage),
    ("binary data", lambda: json.dumps(body(data_base64="AA==")).encode(), InvalidMessage),
    ("data in XML", lambda: json.dumps(body(datacontenttype="text/xml")).encode(), InvalidMessage),
    ("an attribute of no CloudEvents type", lambda: json.dumps(body(priority=1.5)).encode(), InvalidMessage),
    ("an attribute that is an object", lambda: json.dumps(body(priority={})).encode(), InvalidMessage),
    ("an attribute in capitals", lambda: json.dumps(body(Priority=1)).encode(), InvalidMessage),
    ("an attribute with an underscore", lambda: json.dumps(body(queue_name="x")).encode(), InvalidMessage),
    ("an attribute of 21 characters", lambda: json.dumps(body(**{"a" * 21: 1})).encode(), InvalidMessage),
    ("an integer of 33 bits", lambda: json.dumps(body(priority=1 << 31)).encode(), InvalidMessage),
    ("17 attributes", lambda: json.dumps(body(**{f"a{n}": n for n in range(17)})).encode(), InvalidMessage),
    ("attributes of 5 kB", lambda: json.dumps(body(partitionkey="x" * 5_000)).encode(), InvalidMessage),
    ("an extra field", lambda: json.dumps(body(data=INPUTS | {"actor": "x"})).encode(), InvalidMessage),
    ("null options", lambda: json.dumps(body(data=INPUTS | {"options": None})).encode(), InvalidMessage),
    ("an extra option", lambda: json.dumps(body(data=INPUTS | {"options": {"x": 1}})).encode(), InvalidMessage),
    ("no inputs", lambda: json.dumps(body(data={"execution_id": str(ID)})).encode(), InvalidMessage),
    ("inputs as a list", lambda: json.dumps(body(data=INPUTS | {"inputs": []})).encode(), InvalidMessage),
    ("an id that is none", lambda: json.dumps(body(data=INPUTS | {"program_id": "1"})).encode(), InvalidMessage),
    ("a seed as text", lambda: json.dumps(body(data=INPUTS | {"options": {"seed": "1"}})).encode(), InvalidMessage),
    ("a seed below 0", lambda: json.dumps(body(data=INPUTS | {"options": {"seed": -1}})).encode(), InvalidMessage),
    (
        "a seed over 63 bits",
        lambda: json.dumps(body(data=INPUTS | {"options": {"seed": 2**63}})).encode(),
        InvalidMessage,
    ),
    ("a bad traceparent", lambda: json.dumps(body(traceparent="00-1-2-01")).encode(), InvalidMessage),
]


@pytest.mark.parametrize(("make", "error"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED])
def test_what_is_rejected_and_with_which_code(make: Callable[[], bytes], error: type[MessageError]) -> None:
    with pytest.raises(MessageError) as caught:
        decode_command(make())
    assert type(caught.value) is error
    assert caught.value.code == error.code
    assert len(caught.value.message) < 2_000


@pytest.mark.parametrize("number", ["1e999", "-1e400", "9" * 400 + ".0", "9" * 250 + "e99"])
def test_a_number_beyond_doubles_is_rejected(number: str) -> None:
    with pytest.raises(MessageError):
        decode_command(raw(body(data=INPUTS), "12345", number))


def test_a_problem_names_its_field() -> None:
    with pytest.raises(InvalidMessage, match=r"data\.program_id: "):
        decode(body(data=INPUTS | {"program_id": "1"}))


def test_the_limit_counts_bytes_and_holds_on_both_sides() -> None:
    sent = wrap(A_COMMAND_OF_EACH[3], source="/test")
    encoded = sent.encode()
    assert sent.encode(max_bytes=len(encoded)) == encoded
    assert decode_command(encoded, max_bytes=len(encoded)) == sent
    with pytest.raises(MessageTooLarge, match=str(len(encoded))):
        sent.encode(max_bytes=len(encoded) - 1)
    with pytest.raises(MessageTooLarge, match=str(len(encoded))):
        decode_command(encoded, max_bytes=len(encoded) - 1)


def test_the_usual_limit_is_a_mebibyte() -> None:
    def message(length: int) -> Envelope[Any]:
        command = ExecuteProgram(execution_id=ID, program_id=ID, inputs={"a": "x" * length})
        return wrap(command, source="/", message_id="1")

    room = MAX_MESSAGE_BYTES - len(message(0).encode(max_bytes=MAX_MESSAGE_BYTES))
    # The time stamp varies in length with its microseconds, by at most 7 bytes.
    decode_command(message(room - 8).encode())
    with pytest.raises(MessageTooLarge):
        message(room + 8).encode()


@pytest.mark.parametrize("wrong", [{"source": ""}, {"source": "/", "traceparent": "00-1"}])
def test_what_no_envelope_can_have_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=f"{list(wrong)[-1]}: "):
        wrap(InitializeProgram(program_id=ID), **wrong)


def test_text_that_is_not_unicode_is_not_encoded() -> None:
    with pytest.raises(InvalidMessage, match="Unicode"):
        wrap(ExecuteProgram(execution_id=ID, program_id=ID, inputs={"a": "\ud83d"}), source="/").encode()


def test_envelope_and_data_are_frozen() -> None:
    envelope = decode(body())
    with pytest.raises(ValidationError):
        envelope.id = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        envelope.data.program_id = OTHER  # type: ignore[attr-defined]


def test_the_models_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError):
        InitializeProgram.model_validate({"program_id": str(ID), "more": 1})


def test_ids_sort_by_the_time_they_were_made_and_are_of_version_7() -> None:
    first = uuid7()
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert len({uuid7() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
@pytest.mark.parametrize(
    ("type_", "data", "path"),
    [
        ("dspex.program.get.v1", {}, "time"),
        ("dspex.execution.list.v1", {"since": ...}, "data.since"),
        ("dspex.execution.list.v1", {"until": ...}, "data.until"),
        ("dspex.message.list.v1", {"since": ...}, "data.since"),
        ("dspex.delivery.list.v1", {"until": ...}, "data.until"),
        ("dspex.program.statistics.v1", {"program_id": str(ID), "since": ...}, "data.since"),
        ("dspex.message.replay.v1", {"until": ...}, "data.until"),
        ("dspex.execution.discard.v1", {"since": ...}, "data.since"),
        ("dspex.delivery.replay.v1", {"since": ...}, "data.since"),
        ("dspex.program.execute.v1", {"options": {"not_before": ...}}, "data.options.not_before"),
        ("dspex.program.execute.v1", {"options": {"deadline": ...}}, "data.options.deadline"),
    ],
)
def test_a_time_that_is_none_in_utc_is_named(moment: str, type_: str, data: dict[str, Any], path: str) -> None:
    message = json.dumps(body(type=type_, data=data), default=lambda _: moment).encode()
    if path == "time":
        message = json.dumps(body(type=type_, time=moment, data={"program_id": str(ID)})).encode()
    with pytest.raises(InvalidMessage) as raised:
        decode_command(message)
    assert f"{path}: must be within the years 1 to 9999 in UTC" in raised.value.message.split("; ")


def test_a_time_without_a_zone_is_in_utc_and_a_whole_number_is_an_integer() -> None:
    data = {"execution_id": str(uuid4()), "program_id": str(uuid4()), "inputs": {}}
    options = {"seed": 7.0, "not_before": "2026-01-01T00:00:00", "deadline": "2026-01-01T02:00:00+01:00"}
    message = body(time="2026-01-01T00:00:00", type="dspex.program.execute.v1", data=data | {"options": options})
    envelope = decode_command(json.dumps(message).encode())
    assert isinstance(envelope.data, ExecuteProgram)
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    found = envelope.data.options
    assert (envelope.time, found.not_before, found.deadline) == (midnight, midnight, midnight + timedelta(hours=1))
    assert (found.seed, type(found.seed)) == (7, int)
    with pytest.raises(ValueError, match="timezone"):
        ExecutionOptions(not_before=datetime(2026, 1, 1))  # noqa: DTZ001
    for wrong in ({"seed": 7.5}, {"seed": True}, {"seed": "7"}, {"not_before": "soon"}):
        with pytest.raises(InvalidMessage):
            decode_command(json.dumps(message | {"data": data | {"options": wrong}}).encode())
