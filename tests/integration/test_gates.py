"""Pauses and limits in a process that runs executions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.mock.adapter import MockAdapter
from adapters.port import AdapterError, Outcome, RunOptions
from dspex import Configuration, ErrorCode, Usage
from dspex.client.handles import Handle
from dspex.contract.results import ExecutionView
from store import gates
from store.database.engine import make_engine
from store.gates import GateKey, Limits
from tests.waiting import wait_until
from workers.local import LocalClient, embedded
from workers.settings import Settings

LM = GateKey("lm", "openai/gpt-4o-mini")


class Provider:
    """Counts the calls that it gets, and refuses them while `busy`."""

    def __init__(self, run: Callable[..., Outcome]) -> None:
        self.busy: float | None = None
        self.exhausted: float | None = None
        self.seconds = 0.02
        self.go = threading.Event()
        self.go.set()
        self.calls: list[float] = []
        self.most = 0
        self._now = 0
        self._run = run
        self._lock = threading.Lock()

    def execute(self, adapter: Any, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        with self._lock:
            self.calls.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if self.busy is not None:
                text = "too many requests"
                raise AdapterError(ErrorCode.RATE_LIMITED, text, retry_after=self.busy, usage=Usage(calls=1))
            self.go.wait(30)
            time.sleep(self.seconds)
            return replace(self._run(adapter, backend_id, inputs, options), exhausted_for=self.exhausted)
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider(MockAdapter.execute_program)
    monkeypatch.setattr(MockAdapter, "execute_program", lambda *args: made.execute(*args))
    return made


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("store.gates.known.SECONDS", 0.0)  # gates are known at once
    url = f"sqlite:///{tmp_path / 'dspex.db'}"
    return Settings(database_url=url, broker_url="memory://", threads=16, log_level="WARNING")


@pytest.fixture
def client(settings: Settings) -> Iterator[LocalClient]:
    with embedded(settings) as made:
        yield made


@pytest.fixture
def operator(settings: Settings, client: LocalClient) -> Iterator[Callable[..., Any]]:
    engine = make_engine(settings.database_url)

    def does(function: Callable[..., Any], *given: Any, **by: str) -> Any:
        with engine.begin() as connection:
            return function(connection, *given, **by)

    yield does
    engine.dispose()


def program_of(client: LocalClient) -> UUID:
    configuration = Configuration.model_validate({"lm": {"model": LM.name}})
    made = client.create_program("qa", "question -> answer", adapter_type="mock", configuration=configuration)
    client.initialize_program(made.program_id)
    return made.program_id


def begin(client: LocalClient, program_id: UUID, number: int) -> list[Handle]:
    return [client.submit_program(program_id, {"question": str(index)}) for index in range(number)]


def held_by(client: LocalClient, one: Handle) -> str | None:
    waiting = client.get_execution(one.execution_id).waiting
    return waiting.held_by if waiting else None


def ends(handles: list[Handle]) -> list[ExecutionView]:
    return [handle.execution(timeout=30) for handle in handles]


def test_nothing_begins_while_it_is_paused(
    client: LocalClient, provider: Provider, operator: Callable[..., Any]
) -> None:
    program_id = program_of(client)
    operator(gates.pause, LM, by="anna")
    waiting = begin(client, program_id, 5)
    wait_until(lambda: len(client.list_executions(status="pending").items) == 5, "written down")
    assert provider.calls == []
    operator(gates.resume, LM, by="anna")
    assert {one.status for one in ends(waiting)} == {"completed"}


def test_what_a_command_pauses_waits_until_a_command_resumes_it(client: LocalClient, provider: Provider) -> None:
    held, free = program_of(client), program_of(client)
    client.pause("program", held, reason="the index is built again")
    waiting = begin(client, held, 5)
    assert {one.status for one in ends(begin(client, free, 5))} == {"completed"}
    found = client.list_executions(program_id=held).items
    assert {(one.status, one.attempt) for one in found} == {("pending", 0)}
    wait_until(lambda: held_by(client, waiting[0]) == f"program {held}", "it is told what holds it")
    assert len(provider.calls) == 5
    client.resume("program", held)
    assert {one.status for one in ends(waiting)} == {"completed"}


def test_a_limit_set_by_a_command_holds_until_it_is_removed(client: LocalClient, provider: Provider) -> None:
    program_id = program_of(client)
    client.set_limit("program", program_id, limits={"in_flight": 1})
    provider.go.clear()
    waiting = begin(client, program_id, 5)
    wait_until(lambda: len(provider.calls) == 1, "one runs")
    [gate] = client.list_gates().items
    assert (gate.scope.name, gate.in_flight, gate.allowed) == (str(program_id), 1, 1)
    changed = client.set_limit("program", program_id, limits={"in_flight": 3})
    assert (changed.in_flight, changed.allowed) == (1, 3)
    wait_until(lambda: len(provider.calls) == 3, "two more run")
    assert client.remove_limit("program", program_id).limits is None
    wait_until(lambda: len(provider.calls) == 5, "all run")
    provider.go.set()
    assert {one.status for one in ends(waiting)} == {"completed"}


def test_never_more_than_the_limit_and_as_many(
    client: LocalClient, provider: Provider, operator: Callable[..., Any]
) -> None:
    program_id = program_of(client)
    operator(gates.set_limit, LM, Limits(in_flight=3), by="anna")
    waiting = begin(client, program_id, 40)
    assert {one.status for one in ends(waiting)} == {"completed"}
    assert provider.most == 3


def test_a_provider_that_is_busy_is_left_alone_by_all(
    client: LocalClient, provider: Provider, operator: Callable[..., Any]
) -> None:
    """One execution a second finds out whether it still is. None fails, and none spends an attempt."""
    program_id = program_of(client)
    provider.busy = 1.0
    waiting = begin(client, program_id, 1)
    wait_until(lambda: any(gate.closed_until for gate in operator(gates.listing)), "it is closed for all")
    waiting += begin(client, program_id, 40)
    wait_until(lambda: len(provider.calls) == 3, "two more look whether it still is")
    provider.busy = None
    first, *_, last = provider.calls
    assert last - first > 1.9
    assert {(one.status, one.attempt) for one in ends(waiting)} == {("completed", 1)}
    assert len(provider.calls) == 44


def test_a_provider_that_has_nothing_left_is_left_alone_before_it_refuses(
    client: LocalClient, provider: Provider, operator: Callable[..., Any]
) -> None:
    program_id = program_of(client)
    provider.exhausted = 1.0
    waiting = begin(client, program_id, 1)
    wait_until(lambda: any(gate.closed_until for gate in operator(gates.listing)), "it is closed")
    provider.exhausted = None
    waiting += begin(client, program_id, 20)
    assert {(one.status, one.attempt) for one in ends(waiting)} == {("completed", 1)}
    first, second, *rest = provider.calls
    assert second - first > 0.9
    assert len(rest) == 19
