"""The errors of providers, as they write them: the same code from each adapter that calls an LM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.port import Adapter, AdapterError, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, Signature
from tests.lm_server import LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of
from tests.provider_errors import CASES, Case, document

SECRET = "sk-not-to-be-told"
ALIASES = {case.model: f"lm{number}" for number, case in enumerate(CASES)}


@pytest.fixture(scope="module")
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(scope="module", params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    aliases = {alias: LMAlias(model, server.url, "LOCAL_KEY") for model, alias in ALIASES.items()}
    catalog = LMCatalog(aliases, {"LOCAL_KEY": SECRET}.get)
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_error_ends_with_what_it_means(adapter: Adapter, server: LMServer, case: Case) -> None:
    server.script = lambda _: case.answer
    server.requests.clear()
    spec = ProgramSpec("any", Signature.parse("question -> answer"), Configuration(lm=LM(model=ALIASES[case.model])))
    with pytest.raises(AdapterError) as caught:
        adapter.execute_program(adapter.create_program(spec), {"question": "why"}, RunOptions("run"))
    error = caught.value
    assert (error.code, error.retry_after) == (case.code, case.wait), error.message
    assert error.usage.calls == len(server.requests) == 1
    assert error.message.strip()
    assert len(error.message) < 1_000


def test_every_provider_has_its_context_window_and_overload() -> None:
    providers = {case.provider for case in CASES}
    assert len(providers) == 13
    for code, at_least in ((ErrorCode.CONTEXT_WINDOW, providers), (ErrorCode.TRANSIENT, providers)):
        assert {case.provider for case in CASES if case.code is code} == at_least


def test_the_document_is_made_of_the_cases() -> None:
    assert (Path(__file__).parents[2] / "docs" / "errors.md").read_text() == document()
