"""The parts of modules of one's own (`configuration.modules`), on both adapters that run DSPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.native.modules.parts import give_parts
from adapters.own_modules import OwnModules
from adapters.port import Adapter, AdapterError, Outcome, ProgramSpec, RunOptions
from adapters.python_port import PythonPortAdapter
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server
from dspex import Configuration, Signature
from dspex.contract.configuration import Part
from tests.lm_server import LMServer, answers_by

pytestmark = pytest.mark.usefixtures("example_plugin")

PROGRAMS = "dspex_example.programs"
CONTEXT = ["ssh opens a shell on another machine."]


@pytest.fixture(scope="module")
def children(plugin_path: Path) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin_path))
        server = Server(Limits())
        server.fork().close()
    yield server
    server.close()


@pytest.fixture
def lms() -> Iterator[LMServer]:
    with LMServer() as running:
        running.script = answers_by(_answers)
        yield running


def _answers(inputs: Any) -> dict[str, Any]:
    return {"reasoning": "because", "query": "shell on another machine", "answer": "a remote shell", "opinion": "x"}


@pytest.fixture(params=["native", "python_port"])
def adapter(request: pytest.FixtureRequest, lms: LMServer) -> Iterator[Adapter]:
    model = LMAlias("openai/gpt-4o-mini", api_base=lms.url)
    catalog = LMCatalog({"local": model, "judge": LMAlias("openai/gpt-4.1", api_base=lms.url)})
    made: NativeAdapter | PythonPortAdapter = (
        NativeAdapter(catalog)
        if request.param == "native"
        else PythonPortAdapter(catalog, server=request.getfixturevalue("children"))
    )
    yield made
    made.close()


def spec(module: str, modules: dict[str, Any], **given: Any) -> ProgramSpec:
    configuration = Configuration.model_validate(
        {"lm": {"model": "local"}, "module": module, "modules": modules} | given
    )
    found = ProgramSpec("native", Signature.parse("question -> answer"), configuration)
    return dataclasses.replace(found, code=OwnModules((f"{PROGRAMS}:*",)).find(module))


def run(adapter: Adapter, program: ProgramSpec) -> Outcome:
    return adapter.execute_program(adapter.create_program(program), {"question": "what is ssh"}, RunOptions("run"))


def messages(module: Any, **inputs: Any) -> list[dict[str, Any]]:
    """What DSPy sends for a module of one predictor."""
    found: list[dict[str, Any]] = dspy.ChatAdapter().format(module.predictors()[0].signature, [], inputs)
    return found


def test_each_part_sends_what_dspy_sends_for_such_a_module(adapter: Adapter, lms: LMServer) -> None:
    modules = {
        "search": {"module": "ChainOfThought"},
        "respond": {"module": "Predict", "lm": {"model": "judge", "parameters": {"temperature": 0.5}}},
    }
    outcome = run(adapter, spec(f"{PROGRAMS}:RAG", modules))
    assert outcome.outputs == {"answer": "a remote shell"}
    assert [request.body["messages"] for request in lms.requests] == [
        messages(dspy.ChainOfThought("question -> query"), question="what is ssh"),
        messages(dspy.Predict("context: list[str], question -> answer"), context=CONTEXT, question="what is ssh"),
    ]
    assert [request.body["model"] for request in lms.requests] == ["gpt-4o-mini", "gpt-4.1"]
    assert [request.body.get("temperature") for request in lms.requests] == [None, 0.5]


def test_a_part_has_its_parameters(adapter: Adapter, lms: LMServer) -> None:
    modules = {"respond": {"module": "MultiChainComparison", "parameters": {"M": 2}}, "search": {"lm": "judge"}}
    run(adapter, spec(f"{PROGRAMS}:RAG", modules))
    assert [request.body["model"] for request in lms.requests] == ["gpt-4.1", *["gpt-4o-mini"] * 3]


def test_a_part_may_search(adapter: Adapter, lms: LMServer) -> None:
    parameters = {"N": 3, "reward": "brevity", "threshold": -1e9}
    outcome = run(adapter, spec(f"{PROGRAMS}:RAG", {"respond": {"module": "Refine", "parameters": parameters}}))
    assert (outcome.outputs, len(lms.requests)) == ({"answer": "a remote shell"}, 2)


def test_a_part_is_awaited(adapter: Adapter, lms: LMServer) -> None:
    run(adapter, spec(f"{PROGRAMS}:Panel", {"judge": {"module": "ChainOfThought"}}, parameters={"size": 2}))
    assert "reasoning" in lms.requests[-1].body["messages"][0]["content"]


def test_the_state_is_that_of_the_module_with_its_parts(adapter: Adapter, lms: LMServer) -> None:
    class Notebook(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
        def __init__(self) -> None:
            super().__init__()
            self.search = dspy.ChainOfThought("question -> query")
            self.respond = dspy.ChainOfThought("context: list[str], question -> answer")

    notebook: Any = Notebook()
    notebook.search.predict.signature = notebook.search.predict.signature.with_instructions("Be brief.")
    state = {**notebook.dump_state(), "metadata": {"dependency_versions": {"dspy": dspy.__version__}}}
    run(adapter, spec(f"{PROGRAMS}:RAG", {"search": {"module": "ChainOfThought"}}, state=state))
    assert lms.requests[0].body["messages"] == messages(notebook.search, question="what is ssh")


PREDICT, COMPARISON, REACT = {"module": "Predict"}, {"module": "MultiChainComparison"}, {"module": "ReAct"}
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "no such part": ("RAG", {"judge": PREDICT}, {}, "modules.judge: no predictor has this name (there are: search, "),
    "no such module": ("RAG", {"search": {"module": "Guess"}}, {}, "modules.search.module: 'Guess' is not one of "),
    "a parameter": ("RAG", {"search": PREDICT | {"parameters": {"k": 1}}}, {}, "modules.search.parameters.k: is not "),
    "no parameter": ("RAG", {"search": REACT}, {}, "modules.search.parameters.tools: is missing"),
    "two LMs": (
        "RAG",
        {"search": {"lm": "judge"}},
        {"lms": {"s*": {"model": "judge"}}},
        "modules.search.lm: lms.s* has",
    ),
    "not awaited": (
        "Panel",
        {"judge": COMPARISON},
        {},
        "modules.judge.module: 'MultiChainComparison' cannot",
    ),
}


@pytest.mark.parametrize(("module", "modules", "others", "text"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    adapter: Adapter, module: str, modules: dict[str, Any], others: dict[str, Any], text: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        adapter.create_program(spec(f"{PROGRAMS}:{module}", modules, **others))
    assert (caught.value.code, caught.value.message[: len(text)]) == ("permanent", text)


def test_a_module_of_dspy_has_no_parts(adapter: Adapter) -> None:
    with pytest.raises(AdapterError, match="modules: 'Predict' has no parts to name"):
        adapter.create_program(spec("Predict", {"*": {"module": "ChainOfThought"}}))


def test_parts_are_in_the_backend_id() -> None:
    parts = [{}, {"search": {"module": "Predict"}}, {"search": {"module": "Predict", "lm": "judge"}}]
    assert len({spec(f"{PROGRAMS}:RAG", each).backend_id for each in parts}) == 3
    assert "modules" not in spec(f"{PROGRAMS}:RAG", {}).configuration.model_dump_json()


class Odd(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Has its predictors in lists and by keys, and one by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [dspy.Predict("a -> b"), dspy.ChainOfThought("a -> c")]
        self.by = {"x y": dspy.Predict("a -> d", temperature=0.3)}
        self.again = self.first = dspy.Predict("a -> e")
        self.last = self.steps[0]

    def forward(self) -> None:
        """Not called."""


def test_a_predictor_may_be_anywhere_and_have_several_names() -> None:
    odd: Any = Odd()
    give_parts(odd, {"*": Part(module="ChainOfThought")}, {}, lambda _, signature, __: dspy.ChainOfThought(signature))
    assert all(type(part) is dspy.ChainOfThought for part in (*odd.steps, *odd.by.values(), odd.first, odd.last))
    assert odd.again is odd.first
    assert odd.last is odd.steps[0]
    assert list(odd.steps[1].predict.signature.output_fields) == ["reasoning", "c"]
    assert odd.by["x y"].predict.config == {"temperature": 0.3}


def test_reasoning_of_the_signature_itself_stays() -> None:
    odd: Any = Odd()
    made: Any = dspy.Signature
    asked = made("a -> reasoning, c").with_updated_fields("reasoning", desc="why, in one line")
    odd.steps[1].predict.signature = asked
    give_parts(odd, {"steps*": Part(module="Predict")}, {}, lambda _, signature, __: dspy.Predict(signature))
    assert list(odd.steps[1].signature.output_fields) == ["reasoning", "c"]
