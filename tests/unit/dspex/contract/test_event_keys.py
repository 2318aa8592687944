"""Every event goes out under its tenant, and says whose it is."""

from __future__ import annotations

from dspex import ExecuteProgram, decode_event, uuid7
from dspex.contract.commands import CancelExecution
from dspex.contract.events import ExecutionCancelled, ExecutionCompleted, ExecutionFailed, MessageRejected, ProgramReady
from dspex.contract.options import ExecutionOptions
from tests.unit.system import System
from workers.brokers.memory import MemoryPublisher


def test_the_tenant_is_in_the_key_and_in_the_event(system: System) -> None:
    heard: dict[str, set[str | None]] = {}
    assert isinstance(system.app.publisher, MemoryPublisher)
    system.app.publisher.listen(lambda key, body: heard.setdefault(key, set()).add(decode_event(body, 1 << 30).tenant))
    program_id = system.program()
    good, bad, waiting = (uuid7() for _ in range(3))
    system.send(ExecuteProgram(execution_id=good, program_id=program_id, inputs={"question": "?"}))
    system.send(ExecuteProgram(execution_id=bad, program_id=program_id, inputs={}))
    system.send(ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={}))
    later = ExecutionOptions.model_validate({"not_before": "2999-01-01T00:00:00Z"})
    system.send(ExecuteProgram(execution_id=waiting, program_id=program_id, inputs={"question": "?"}, options=later))
    system.event(ExecutionCompleted, good)
    system.event(ExecutionFailed, bad)
    system.event(MessageRejected)
    system.send(CancelExecution(execution_id=waiting))
    system.event(ExecutionCancelled, waiting)
    system.event(ProgramReady)
    assert heard == {
        "default.dspex.program.ready.v1": {"default"},
        "default.dspex.execution.completed.v1": {"default"},
        "default.dspex.execution.failed.v1": {"default"},
        "default.dspex.execution.cancelled.v1": {"default"},
        "default.dspex.message.rejected.v1": {"default"},
    }
