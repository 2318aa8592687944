"""Every adapter, held to the contract of `adapters/port.py`."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from adapters.contract import AdapterContract, Subject
from adapters.lm import LMAlias, LMCatalog
from adapters.mock import MockAdapter
from adapters.native import NativeAdapter
from adapters.port import ProgramSpec
from adapters.python_port import Limits, PythonPortAdapter
from adapters.python_port.environments import Environment
from adapters.python_port.server import Server
from adapters.registry import BUILT_IN, AdapterRegistry
from deploy.environments import OLDER, make_environment, with_dspy
from dspex import LM, Configuration, ErrorCode
from tests import lm_server
from tests.sizes import TORTURE


class TestMock(AdapterContract):
    """The mock adapter; its parameters say how to fail."""

    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            "mock",
            MockAdapter,
            lambda spec, code: told_to(spec, fail={code.value: "always"}),
            codes=frozenset(ErrorCode),
            slow=lambda spec: told_to(spec, latency_ms=3_600_000),
        )


@contextmanager
def told_to(spec: ProgramSpec, **parameters: Any) -> Generator[ProgramSpec, None, None]:
    configuration = Configuration(module=spec.configuration.module, parameters=parameters)
    yield ProgramSpec(spec.adapter_type, spec.signature, configuration)


SECRET = "sk-not-to-be-told"

FAILURES: Mapping[ErrorCode, lm_server.Script] = {
    ErrorCode.AUTH: lm_server.unauthorized,
    ErrorCode.RATE_LIMITED: lm_server.error(429, message=f"slow down, {SECRET}"),
    ErrorCode.BILLING: lm_server.error(429, code="insufficient_quota", message=f"{SECRET} has no money"),
    ErrorCode.CONTEXT_WINDOW: lm_server.context_too_long,
    ErrorCode.TRANSIENT: lm_server.error(500, message=f"{SECRET} broke it", code=SECRET),
    ErrorCode.PERMANENT: lm_server.error(400, message=f"{SECRET} is wrong" * 100),
    ErrorCode.REFUSED: lm_server.filtered,
    ErrorCode.PARSE_FAILURE: lm_server.text(f"The key is {SECRET}. " * 100),
    ErrorCode.INVALID_OUTPUT: lm_server.text(f"[[ ## answer ## ]]\n{SECRET}\x00"),
}


@pytest.mark.filterwarnings("ignore:Field name .* shadows:UserWarning")
class TestNative(AdapterContract):
    """The native adapter, with an LM on this machine."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        with lm_server.LMServer() as server:
            aliases = {"local": LMAlias("openai/gpt-4o-mini", api_base=server.url, secret="LOCAL_KEY")}
            catalog = LMCatalog(aliases, {"LOCAL_KEY": SECRET}.get)

            def failing(spec: ProgramSpec, code: ErrorCode) -> AbstractContextManager[ProgramSpec]:
                return scripted(server, FAILURES[code], spec)

            yield Subject(
                "native",
                lambda capacity: NativeAdapter(catalog, capacity),
                failing,
                codes=frozenset(FAILURES),
                slow=lambda spec: never_answered(server, spec),
                stops=False,
                lm=LM(model="local"),
                secret=SECRET,
            )


@contextmanager
def scripted(
    server: lm_server.LMServer, script: lm_server.Script, spec: ProgramSpec
) -> Generator[ProgramSpec, None, None]:
    before, server.script = server.script, script
    try:
        yield spec
    finally:
        server.script = before


@contextmanager
def never_answered(server: lm_server.LMServer, spec: ProgramSpec) -> Generator[ProgramSpec, None, None]:
    """The LM does not answer before the context ends."""
    end = threading.Event()
    try:
        with scripted(server, lm_server.held(end), spec):
            yield spec
    finally:
        end.set()


class TestPythonPort(AdapterContract):
    """The python_port adapter, its child processes calling an LM on this machine."""

    @pytest.fixture
    def subject(self, server_of_children: Server) -> Iterator[Subject]:
        with lm_server.LMServer() as server, ExitStack() as ending:
            aliases = {"local": LMAlias("openai/gpt-4o-mini", api_base=server.url, secret="LOCAL_KEY")}
            catalog = LMCatalog(aliases, {"LOCAL_KEY": SECRET}.get)

            def make(capacity: int) -> PythonPortAdapter:
                adapter = PythonPortAdapter(catalog, capacity, server=server_of_children)
                ending.callback(adapter.close)
                return adapter

            yield Subject(
                "python_port",
                make,
                lambda spec, code: scripted(server, FAILURES[code], spec),
                codes=frozenset(FAILURES),
                slow=lambda spec: never_answered(server, spec),
                lm=LM(model="local"),
                secret=SECRET,
                passes_on=frozenset(Limits().environment),
            )


@pytest.fixture(scope="module", params=["own", *OLDER])
def server_of_an_environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """With the worker's own version of DSPy, and with each older minor version."""
    if request.param == "own":
        python = make_environment(tmp_path_factory.mktemp("environment") / "rag")
    else:
        python = with_dspy(request.param)
    server = Server(Limits(), Environment("rag", str(python)))
    yield server
    server.close()


@pytest.mark.skipif(not TORTURE, reason="make torture; tests/integration has what differs")
class TestPythonPortInAnEnvironment(TestPythonPort):
    """The same, its child processes on the Python of an environment, in which DSPex is not installed."""

    @pytest.fixture
    def server_of_children(self, server_of_an_environment: Server) -> Server:
        return server_of_an_environment


class TestPlugin(AdapterContract):
    """The adapter of another distribution, as the registry finds it."""

    @pytest.fixture
    def subject(self, example_plugin: None) -> Subject:
        return Subject(
            "echo",
            type(AdapterRegistry().get("echo")),
            lambda spec, code: told_to(spec, fail=code.value),
            codes=frozenset({ErrorCode.TRANSIENT, ErrorCode.REFUSED}),
            slow=lambda spec: told_to(spec, hang=True),
        )


def test_every_adapter_is_held_to_the_contract() -> None:
    tested = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    assert tested == {*(name.replace("_", "") for name in BUILT_IN), "pythonportinanenvironment", "plugin"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_registry_makes_each_adapter_once(name: str) -> None:
    registry = AdapterRegistry()
    adapter: Any = registry.get(name)
    assert registry.get(name) is adapter
    registry.close()
    registry.close()
    assert registry.get(name) is not adapter
