"""How many LM calls can be under way at once: as many as there are threads, whatever DSPy's own bounds are."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from adapters.contract import wait_until
from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.port import ProgramSpec, RunOptions
from dspex import LM, Configuration, Signature
from tests import lm_server
from tests.lm_server import LMServer

CALLS = 250
HIGH = 1100


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


def adapter_for(server: LMServer) -> NativeAdapter:
    aliases = {name: LMAlias("openai/gpt-4o-mini", server.url, "LOCAL_KEY") for name in ("one", "other")}
    return NativeAdapter(LMCatalog(aliases, {"LOCAL_KEY": "sk-local"}.get))


def spec(model: str = "one") -> ProgramSpec:
    return ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=LM(model=model)))


@pytest.mark.parametrize("timeout", [None, 300.0])
def test_as_many_calls_are_under_way_as_there_are_threads(server: LMServer, timeout: float | None) -> None:
    adapter, end = adapter_for(server), threading.Event()
    server.script = lm_server.held(end)
    backend_id = adapter.create_program(spec())
    options = [RunOptions(f"run-{number}", timeout=timeout) for number in range(CALLS)]
    with ThreadPoolExecutor(CALLS) as pool:
        runs = [pool.submit(adapter.execute_program, backend_id, {"question": "why"}, option) for option in options]
        try:
            wait_until(lambda: len(server.requests) == CALLS or any(run.done() for run in runs))
            assert len(server.requests) == CALLS
        finally:
            end.set()
        assert all(run.result(60).outputs["answer"] for run in runs)
    adapter.close()


def test_programs_and_timeouts_share_connections(server: LMServer) -> None:
    adapter = adapter_for(server)
    for model in ("one", "other"):
        backend_id = adapter.create_program(spec(model))
        for timeout in (None, 5.0, 50.0, 500.0):
            adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run", timeout=timeout))
    assert server.connections == 1
    adapter.close()


def test_connections_with_high_descriptors_are_shared_too(server: LMServer) -> None:
    """`select` takes no descriptor from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < HIGH + 200:
        pytest.skip(f"{hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 200), hard))
    adapter = adapter_for(server)
    with ExitStack() as opened:
        while opened.enter_context(Path(os.devnull).open("rb")).fileno() < HIGH:
            pass
        backend_id = adapter.create_program(spec())
        for _ in range(3):
            adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.connections == 1
    adapter.close()


def test_a_call_waits_no_longer_than_its_run_has_left(server: LMServer) -> None:
    adapter, end = adapter_for(server), threading.Event()
    server.script = lm_server.held(end)
    backend_id = adapter.create_program(spec())
    try:
        with pytest.raises(Exception, match=r"took longer|no bytes for") as caught:
            adapter.execute_program(backend_id, {"question": "why"}, RunOptions("run", timeout=0.5))
        assert getattr(caught.value, "code", None) == "timeout"
    finally:
        end.set()
    adapter.close()
