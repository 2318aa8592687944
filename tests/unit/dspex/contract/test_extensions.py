"""Extension attributes and the trace of a message come back with all that is told of it, within their bounds."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from dspex import ExecuteProgram, ExecutionCompleted, MessageRejected, ProgramReady, decode_event, uuid7
from dspex.amqp.publication import Publication
from dspex.amqp.topology import COMMANDS_EXCHANGE
from dspex.contract.commands import Command
from dspex.contract.envelope import Context, context_of, wrap
from dspex.contract.events import ExecutionCancelled, ExecutionFailed
from dspex.contract.results import Answer
from dspex.contract.status import ExecutionStatus
from dspex.errors import Conflict
from tests.unit.system import System
from workers.outbound.encoder import encode_answer, encode_error

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
EXTENSIONS: dict[str, Any] = {"partitionkey": "é", "sequence": -3, "final": True}
CONTEXT = Context(TRACE, EXTENSIONS)


def most() -> dict[str, Any]:
    """As many as there may be, with as many bytes: 16 and 4 KiB."""
    attributes = {f"{'a' * 18}{n:02}": "x" for n in range(16)}
    attributes["a" * 18 + "15"] += "x" * (4096 - len(json.dumps(attributes, separators=(",", ":"))))
    return attributes


def publish(system: System, type_: str, extensions: dict[str, Any], data: dict[str, Any]) -> str:
    message = {"specversion": "1.0", "id": str(uuid7()), "source": "/t", "type": type_, "traceparent": TRACE}
    body = json.dumps(message | extensions | {"data": data}).encode()
    system.app.publisher.publish(
        Publication(body, exchange=COMMANDS_EXCHANGE, routing_key=type_, message_id=message["id"])
    )
    return message["id"]


def execute(program_id: UUID, question: str) -> dict[str, Any]:
    return {"execution_id": str(uuid7()), "program_id": str(program_id), "inputs": {"question": question}}


EXECUTE = "dspex.program.execute.v1"


@pytest.mark.parametrize("extensions", [EXTENSIONS, most(), {}], ids=["some", "as many as there may be", "none"])
def test_of_an_execution(system: System, extensions: dict[str, Any]) -> None:
    program_id = system.program()
    data = execute(program_id, "why")
    publish(system, EXECUTE, extensions, data)
    assert system.event(ExecutionCompleted, data["execution_id"]).context == (TRACE, extensions)


def test_of_executions_that_end_otherwise(system: System) -> None:
    failing = system.program(parameters={"fail": {"permanent": "always"}})
    failed = execute(failing, "why")
    publish(system, EXECUTE, EXTENSIONS, failed)
    assert system.event(ExecutionFailed, failed["execution_id"]).context == CONTEXT
    slow = system.program(parameters={"latency_ms": 60_000})
    cancelled = execute(slow, "why")
    publish(system, EXECUTE, EXTENSIONS, cancelled)
    running = UUID(cancelled["execution_id"])
    system.wait(lambda: (row := system.row(running)) is not None and row.status == ExecutionStatus.RUNNING)
    publish(system, "dspex.execution.cancel.v1", {"other": "x"}, {"execution_id": cancelled["execution_id"]})
    assert system.event(ExecutionCancelled, cancelled["execution_id"]).context == CONTEXT


def test_of_a_program_that_is_built(system: System) -> None:
    program_id = system.program(initialize=False)
    publish(system, "dspex.program.initialize.v1", EXTENSIONS, {"program_id": str(program_id)})
    assert system.event(ProgramReady, program_id).context == CONTEXT


@pytest.mark.parametrize(
    "data",
    [{"execution_id": str(UUID(int=1)), "program_id": str(UUID(int=2)), "inputs": {}}, {"execution_id": "none"}, None],
    ids=["that cannot be done", "that cannot be read", "of null"],
)
def test_of_a_message_that_is_rejected(system: System, data: Any) -> None:
    message_id = publish(system, EXECUTE, EXTENSIONS, data)
    told = system.event(MessageRejected)
    assert told.data.message_id == message_id
    assert told.context == CONTEXT


@pytest.mark.parametrize(
    "others",
    [
        most() | {"a" * 18 + "00": "xx"},
        {f"a{n}": n for n in range(17)},
        {f"a{n}": n for n in range(10_000)},
        {"key": [1]},
        {"Key": "x"},
        {"key": 1 << 31},
        {"key": "a\x00"},
        {"key": 1.5},
        {"actor": {"a": 1}},
    ],
    ids=["too long", "17", "10,000", "a list", "a capital", "33 bits", "U+0000", "a fraction", "an object"],
)
def test_what_is_no_extension_is_not_told(system: System, others: dict[str, Any]) -> None:
    message_id = publish(system, EXECUTE, others, {})
    told = system.event(MessageRejected)
    assert (told.data.message_id, told.context) == (message_id, (TRACE, {}))


@pytest.mark.parametrize("traceparent", ["00-1-2-01", 1, None, [TRACE], TRACE + "\n", "\x00"])
def test_a_trace_that_cannot_be_is_none(traceparent: object) -> None:
    assert context_of({"traceparent": traceparent, "key": "x"}) == (None, {"key": "x"})


def test_what_is_within_the_bounds_is_told_beside_what_is_not_known() -> None:
    assert context_of({"Wrong": 1, "data": {}, "none": None, **most()}) == (None, most())


def test_of_an_answer() -> None:
    for encoded in (
        encode_answer(Answer(value=True), 2**20, query=True, context=Context(TRACE, most())),
        encode_error(Conflict("no"), 2**20, context=Context(TRACE, most())),
        encode_error(Conflict("é" * 2**20), 2**20, context=Context(TRACE, most())),
    ):
        assert decode_event(encoded.body).context == (TRACE, most())


def test_a_command_of_ours_has_none() -> None:
    command: Command = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={})
    assert wrap(command, source="/t").context == (None, {})
