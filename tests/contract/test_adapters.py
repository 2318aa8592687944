"""Every adapter, held to the contract of `adapters/port.py`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.mock import MockAdapter
from adapters.native import NativeAdapter
from adapters.port import ProgramSpec
from adapters.registry import BUILT_IN, AdapterRegistry
from dspex import LM, Configuration, ErrorCode
from tests import lm_server
from tests.contract.adapter_contract import AdapterContract, Subject


class TestMock(AdapterContract):
    """The mock adapter; its parameters say how to fail."""

    @pytest.fixture
    def subject(self) -> Subject:
        return Subject("mock", MockAdapter, mock_failing, codes=frozenset(ErrorCode))


@contextmanager
def mock_failing(spec: ProgramSpec, code: ErrorCode) -> Generator[ProgramSpec, None, None]:
    configuration = Configuration(module=spec.configuration.module, parameters={"fail": {code.value: "always"}})
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
                lm=LM(model="local"),
                secret=SECRET,
            )


@contextmanager
def scripted(
    server: lm_server.LMServer, script: lm_server.Script, spec: ProgramSpec
) -> Generator[ProgramSpec, None, None]:
    before, server.script = server.script, script
    yield spec
    server.script = before


def test_every_adapter_is_held_to_the_contract() -> None:
    tested = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    assert tested == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_registry_makes_each_adapter_once(name: str) -> None:
    registry = AdapterRegistry()
    adapter: Any = registry.get(name)
    assert registry.get(name) is adapter
    registry.close()
    registry.close()
    assert registry.get(name) is not adapter
