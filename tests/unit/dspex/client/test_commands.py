"""What is said to a verb is in its command."""

from __future__ import annotations

from typing import Any

import pytest

from dspex import ExecuteProgram, ExecutionOptions, uuid7
from dspex.client.interface import Interface
from dspex.client.pending import Pending
from dspex.contract.callback import Callback
from dspex.contract.queries import GetExecution


class Sent(Exception):
    """A command would have been sent."""


class Recorder(Interface):
    """An interface of which nothing gets out."""

    validate = False

    def __init__(self) -> None:
        self.commands: list[ExecuteProgram] = []

    def start(
        self, command: ExecuteProgram, *, timeout: float | None = None, traceparent: str | None = None
    ) -> Pending:
        self.commands.append(command)
        raise Sent(traceparent)

    def ask(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def attach(self, wanted: GetExecution) -> Pending:
        raise NotImplementedError

    def close(self) -> None: ...


@pytest.mark.parametrize("verb", ["start_program", "submit_program", "execute_program"])
def test_every_field_of_an_execution_can_be_said(verb: str) -> None:
    asked = ExecuteProgram(
        execution_id=uuid7(),
        program_id=uuid7(),
        inputs={"question": "why?"},
        options=ExecutionOptions(seed=7),
        idempotency_key="once",
        callback=Callback(url="https://orders.example.com/done", secret="ORDERS_WEBHOOK_SECRET"),
        metadata={"order": "17"},
    )
    assert asked.model_fields_set == set(ExecuteProgram.model_fields)
    client = Recorder()
    with pytest.raises(Sent, match="trace"):
        getattr(client, verb)(**{name: getattr(asked, name) for name in asked.model_fields_set}, traceparent="trace")
    assert client.commands == [asked]
