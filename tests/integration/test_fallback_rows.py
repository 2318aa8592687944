"""A program with fallbacks and a state on the whole way: messages, rows, adapters."""

from __future__ import annotations

from pathlib import Path

from dspex import (
    Configuration,
    CreateProgram,
    CreateSignature,
    ErrorCode,
    ExecuteProgram,
    InitializeProgram,
    ProgramStatus,
    Signature,
    uuid7,
)
from dspex.contract.commands import Command
from dspex.contract.envelope import decode_command, wrap
from store import executions, programs
from store.executions import Execution
from tests.waiting import wait_until
from workers.application.wiring import Application, bootstrap
from workers.handlers.dispatch import dispatch
from workers.persistence.schema import require_schema
from workers.process.worker import WorkerProcess
from workers.security.principals import EVERYBODY
from workers.security.request import Received
from workers.settings import Settings


def handle(app: Application, command: Command) -> None:
    """As an actor does, with a message that went over the wire."""
    received = decode_command(wrap(command, source="/test").encode()).data
    dispatch(app, Received(received, EVERYBODY, "/test"))


def test_every_try_is_in_the_row_of_the_execution(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dspex.db'}"
    app = bootstrap(Settings(database_url=url))
    require_schema(app.engine)
    signature = Signature.parse("question -> answer")
    configuration = {
        "parameters": {"fail": {"rate_limited": "always"}, "usage": {"cost": 0.5}},
        "lm": {"model": "lm/first"},
        "state": {"signature_digest": signature.digest, "module": "Predict", "predictors": {"self": {}}},
        "fallbacks": [{"on": ["rate_limited"], "lm": {"model": "lm/second"}, "parameters": {"usage": {"cost": 0.25}}}],
    }
    signature_id, program_id, execution_id = uuid7(), uuid7(), uuid7()
    handle(app, CreateSignature(signature_id=signature_id, signature=signature))
    handle(
        app,
        CreateProgram(
            program_id=program_id,
            signature_id=signature_id,
            name="p",
            adapter_type="mock",
            configuration=Configuration.model_validate(configuration),
        ),
    )
    handle(app, InitializeProgram(program_id=program_id))
    worker = WorkerProcess(app)
    worker.start()
    handle(app, ExecuteProgram(execution_id=execution_id, program_id=program_id, inputs={"question": "why"}))

    def execution_now() -> Execution:
        with app.engine.connect() as connection:
            return executions.get(connection, [execution_id])[0]

    wait_until(lambda: execution_now().status.terminal, "it ends")
    assert worker.stop(30)
    execution = execution_now()
    with app.engine.connect() as connection:
        program = programs.get(connection, program_id)
    app.close()
    assert program.status == ProgramStatus.READY
    assert program.configuration == Configuration.model_validate(configuration)
    assert execution.outputs
    assert execution.usage.cost == 0.75
    assert [(told.model, told.error) for told in execution.usage.tries] == [
        ("lm/first", ErrorCode.RATE_LIMITED),
        ("lm/second", None),
    ]
