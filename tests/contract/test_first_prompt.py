"""What a program would send first is what it sends, and nothing is sent for it: on both adapters that run an LM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from adapters.fallback import LoadedProgram
from adapters.lm import LMAlias, LMCatalog
from adapters.mock.adapter import MockAdapter
from adapters.port import Adapter, AdapterError, ProgramNotLoaded, ProgramSpec, RunOptions, ShowsPrompts
from dspex import LM, Configuration, Signature
from tests import lm_server
from tests.lm_server import LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SECRET = "sk-first-prompt"
SPEC = ProgramSpec(
    "native", Signature.parse("question, tags: list[str] -> answer, sure: float"), Configuration(lm=LM(model="local"))
)
INPUTS = {"question": "why é? " * 3000, "tags": ["p", "q"]}
STATE = {
    "signature_digest": SPEC.signature.digest,
    "module": "Predict",
    "predictors": {"self": {"demos": [{"question": "how?", "tags": [], "answer": "so", "sure": 0.5}]}},
}


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", server.url, "LOCAL_KEY")}, {"LOCAL_KEY": SECRET}.get)
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("server_of_children")) as made:
        yield made


def program(**given: Any) -> ProgramSpec:
    return replace(SPEC, configuration=Configuration.model_validate({"lm": {"model": "local"}} | given))


@pytest.mark.parametrize(
    "spec",
    [
        program(),
        program(state=STATE),
        program(module="ChainOfThought", prompt_adapter="json"),
        program(module="MultiChainComparison", parameters={"M": 2}),
        program(lm={"model": "local", "parameters": {"n": 3}}, prompt_adapter="xml"),
    ],
    ids=["Predict", "state", "json", "chains", "several"],
)
def test_it_is_what_is_sent(adapter: Adapter, server: LMServer, spec: ProgramSpec) -> None:
    backend_id = adapter.create_program(spec)
    assert isinstance(adapter, ShowsPrompts)
    prompt = adapter.first_prompt(backend_id, INPUTS)
    assert not server.requests
    assert prompt.model == "openai/gpt-4o-mini"
    server.script = lm_server.fields(reasoning="so", answer="a", sure="0.5")
    with suppress(AdapterError):  # of an answer in another form
        adapter.execute_program(backend_id, INPUTS, RunOptions("run"))
    assert list(prompt.messages) == server.requests[0].body["messages"]
    assert adapter.first_prompt(backend_id, INPUTS) == prompt


def test_a_key_in_the_inputs_is_not_shown(adapter: Adapter) -> None:
    assert isinstance(adapter, ShowsPrompts)
    prompt = adapter.first_prompt(adapter.create_program(SPEC), {"question": f"is it {SECRET}?", "tags": []})
    assert SECRET not in str(prompt)
    assert "is it ***?" in str(prompt)


def test_a_program_that_is_not_there(adapter: Adapter) -> None:
    assert isinstance(adapter, ShowsPrompts)
    with pytest.raises(ProgramNotLoaded):
        adapter.first_prompt("native-1", INPUTS)


def test_a_program_that_was_dropped_is_built_again(adapter: Adapter, server: LMServer) -> None:
    loaded = LoadedProgram(SPEC, lambda _: adapter)
    adapter.delete_program(SPEC.backend_id)
    assert loaded.first_prompt(INPUTS).messages[-1]["role"] == "user"
    assert not server.requests


def test_an_adapter_without_an_lm_says_so() -> None:
    loaded = LoadedProgram(replace(SPEC, adapter_type="mock"), lambda _: MockAdapter())
    with pytest.raises(AdapterError, match="adapter_type: 'mock' has no prompts to show"):
        loaded.first_prompt(INPUTS)
