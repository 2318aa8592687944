"""Outputs beside the signature, of DSPy's modules and of one of one's own; a signature with `reasoning` itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dspy
import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.setup import prepare_dspy
from adapters.own_modules import OwnModules
from adapters.port import Adapter, AdapterError, Outcome, ProgramSpec, RunOptions
from adapters.python_port import Limits
from adapters.python_port.server import Server
from dspex import Configuration, Signature
from tests.lm_server import LMServer, fields, in_turn
from tests.on_an_lm import ON_AN_LM, adapter_of

pytestmark = [pytest.mark.usefixtures("example_plugin"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(scope="module")
def children() -> Iterator[Server]:
    server = Server(Limits())
    yield server
    server.close()


@pytest.fixture(params=ON_AN_LM)
def adapter(request: pytest.FixtureRequest, server: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias(MODEL, api_base=server.url)})
    with adapter_of(request.param, catalog, lambda: request.getfixturevalue("children")) as made:
        yield made


@pytest.fixture
def native(server: LMServer) -> Iterator[NativeAdapter]:
    adapter = NativeAdapter(LMCatalog({"local": LMAlias(MODEL, api_base=server.url)}))
    yield adapter
    adapter.close()


def spec(module: str, signature: Any = "question -> answer", /, **given: Any) -> ProgramSpec:
    configuration = Configuration.model_validate({"lm": {"model": "local"}, "module": module} | given)
    return ProgramSpec("any", Signature.parse(signature), configuration)


def run(adapter: Adapter, program: ProgramSpec) -> Outcome:
    return adapter.execute_program(adapter.create_program(program), {"question": "why"}, RunOptions("run"))


def test_the_reasoning_of_a_chain_of_thought(adapter: Adapter, server: LMServer) -> None:
    server.script = fields(reasoning="as it is so", answer="so")
    found = run(adapter, spec("ChainOfThought", extra_outputs=["reasoning", "nothing"]))
    assert (found.outputs, found.extra_outputs) == ({"answer": "so"}, {"reasoning": "as it is so"})
    assert run(adapter, spec("ChainOfThought")).extra_outputs == {}


def test_the_trajectory_of_an_agent(native: NativeAdapter, server: LMServer) -> None:
    called = fields(next_thought="look", next_tool_name="capital_of", next_tool_args={"country": "France"})
    finished = fields(next_thought="done", next_tool_name="finish", next_tool_args={})
    server.script = in_turn(called, finished, fields(reasoning="I looked", answer="Paris"))
    program = spec("ReAct", parameters={"tools": ["capital_of"]}, extra_outputs=["trajectory"])
    found = run(native, program)
    assert found.outputs == {"answer": "Paris"}
    assert found.extra_outputs["trajectory"] | {"observation_1": ""} == {
        "thought_0": "look",
        "tool_name_0": "capital_of",
        "tool_args_0": {"country": "France"},
        "observation_0": "Paris",
        "thought_1": "done",
        "tool_name_1": "finish",
        "tool_args_1": {},
        "observation_1": "",
    }


def test_the_sources_of_a_module_of_ones_own(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(fields(query="shell on another machine"), fields(answer="a remote shell"))
    program = spec("dspex_example.programs:RAG", extra_outputs=["context"])
    program = replace(program, code=OwnModules(("dspex_example.programs:*",)).find(program.configuration.module))
    assert run(native, program).extra_outputs == {"context": ["ssh opens a shell on another machine."]}


def test_an_output_of_the_signature_is_refused(adapter: Adapter) -> None:
    with pytest.raises(AdapterError, match=r"extra_outputs\.0: 'answer' is an output of the signature"):
        adapter.create_program(spec("Predict", extra_outputs=["answer"]))


def test_a_chain_of_thought_may_have_its_reasoning_in_the_signature(native: NativeAdapter, server: LMServer) -> None:
    class Reasoned(dspy.Signature):  # type: ignore[misc]  # DSPy has no type information
        """Answer."""

        question: str = dspy.InputField()
        answer: str = dspy.OutputField()
        reasoning: list[str] = dspy.OutputField(desc="step by step")

    ours = {
        "instructions": "Answer.",
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [
            {"name": "answer", "type": "str"},
            {"name": "reasoning", "type": "list[str]", "description": "step by step"},
        ],
    }
    server.script = fields(reasoning=["it is", "so"], answer="so")
    prepare_dspy()
    lm = dspy.LM(MODEL, api_base=server.url, api_key="none", cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        dspy.ChainOfThought(Reasoned)(question="why")
    assert run(native, spec("ChainOfThought", ours)).outputs == {"answer": "so", "reasoning": ["it is", "so"]}
    theirs, sent = (json.dumps(request.body) for request in server.requests)
    assert sent == theirs


@pytest.mark.parametrize(
    ("module", "signature"), [("ChainOfThought", "reasoning -> answer"), ("ReAct", "question -> reasoning")]
)
def test_elsewhere_the_name_is_the_modules(native: NativeAdapter, module: str, signature: str) -> None:
    parameters = {"tools": ["capital_of"]} if module == "ReAct" else {}
    with pytest.raises(AdapterError, match="has a field 'reasoning' of its own: rename yours"):
        native.create_program(spec(module, signature, parameters=parameters))
