"""Modules of one's own, by entry point and by the operator's allow-list, on both adapters that run DSPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.own_modules import OwnModules
from adapters.port import Adapter, AdapterError, NotHere, Outcome, ProgramSpec, RunOptions
from adapters.python_port import PythonPortAdapter
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server
from dspex import Configuration, ErrorCode, Signature
from tests.lm_server import LMServer, answers_by, fields, in_turn
from tests.pages import block

pytestmark = pytest.mark.usefixtures("example_plugin")

ALLOWED = OwnModules(("dspex_example.programs:*",))
PROGRAMS = "dspex_example.programs"


@pytest.fixture(scope="module")
def children(plugin_path: Path) -> Iterator[Server]:
    """A server of children that has the plug-in on its path, as it starts with the path of the worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(plugin_path))
        server = Server(Limits())
        server.fork().close()
    yield server
    server.close()


@pytest.fixture
def lms() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture(params=["native", "python_port"])
def adapter(request: pytest.FixtureRequest, lms: LMServer) -> Iterator[Adapter]:
    catalog = LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=lms.url)})
    made: NativeAdapter | PythonPortAdapter = (
        NativeAdapter(catalog)
        if request.param == "native"
        else PythonPortAdapter(catalog, server=request.getfixturevalue("children"))
    )
    yield made
    made.close()


def spec(module: str, signature: Any = "question -> answer", /, **given: Any) -> ProgramSpec:
    configuration = Configuration.model_validate({"lm": {"model": "local"}, "module": module} | given)
    found = ProgramSpec("native", Signature.parse(signature), configuration)
    return replace(found, code=ALLOWED.find(module))


def run(adapter: Adapter, program: ProgramSpec, question: str = "what is apt") -> Outcome:
    backend_id = adapter.create_program(program)
    return adapter.execute_program(backend_id, {"question": question}, RunOptions("run", trace=True))


def failure(call: Callable[[], Any]) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("name", ["rag", f"{PROGRAMS}:RAG"])
def test_a_class_of_ones_own_runs(adapter: Adapter, lms: LMServer, name: str) -> None:
    lms.script = in_turn(fields(query="shell on another machine"), fields(answer="a remote shell"))
    outcome = run(adapter, spec(name, parameters={"k": 2}))
    assert outcome.outputs == {"answer": "a remote shell"}
    assert (outcome.usage.calls, outcome.usage.input_tokens is not None) == (2, True)
    assert [step.name for step in outcome.trace or () if step.kind == "predictor"] == ["search", "respond.predict"]
    context = lms.requests[1].prompt.inputs["context"]
    assert "ssh opens a shell" in context
    assert context.count("installs") == 1


def test_a_function_makes_a_module_for_the_signature(adapter: Adapter, lms: LMServer) -> None:
    lms.script = fields(answer="an installer", sure=True)
    outcome = run(adapter, spec("grounded", "question -> answer, sure: bool"))
    assert outcome.outputs == {"answer": "an installer", "sure": True}
    assert list(lms.requests[0].prompt.inputs) == ["context", "question"]


@pytest.mark.parametrize(
    ("question", "code", "text"),
    [
        ("private", "permanent", "module: 'dspex_example.programs:Broken' failed with ValueError in "),
        ("exit", "permanent", "module: 'dspex_example.programs:Broken' failed with SystemExit in "),
        ("connection", "transient", "module: 'dspex_example.programs:Broken' failed with ConnectionError in "),
        ("nothing", "invalid_output", "answer: 'dspex_example.programs:Broken' returned no such output"),
        ("text", "invalid_output", "answer: 'dspex_example.programs:Broken' returned a str, and no dspy.Prediction"),
    ],
)
def test_an_error_of_a_module_is_not_quoted(adapter: Adapter, question: str, code: str, text: str) -> None:
    error = failure(lambda: run(adapter, spec(f"{PROGRAMS}:Broken"), question))
    assert error.code == code
    assert error.message.startswith(text)
    assert question not in error.message.removeprefix(text)
    if text.endswith(" in "):
        assert error.message.removeprefix(text).startswith("dspex_example.programs, line ")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("rag", "question -> answer", {"parameters": {"size": 2}}), "parameters: 'rag' does not take these"),
        (("rag", "query -> answer", {}), "signature: 'forward' of 'rag' does not take its inputs"),
        (("rag", "question, hint -> answer", {}), "signature: 'forward' of 'rag' does not take its inputs"),
        ((f"{PROGRAMS}:not_a_module", "question -> answer", {}), "module: 'dspex_example.programs:not_a_module' made"),
        ((f"{PROGRAMS}:PASSAGES", "question -> answer", {}), "module: 'dspex_example.programs:PASSAGES' is neither"),
        ((f"{PROGRAMS}:Missing", "question -> answer", {}), "module: 'dspex_example.programs:Missing': there is no"),
        ((f"{PROGRAMS}:Any", "question -> answer", {}), "module: 'dspex_example.programs:Any' is neither"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    lms: LMServer, given: tuple[str, str, dict[str, Any]], text: str
) -> None:
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=lms.url)}))
    module, signature, others = given
    error = failure(lambda: native.create_program(spec(module, signature, **others)))
    assert (error.code, error.message[: len(text)]) == (ErrorCode.PERMANENT, text)


def test_the_page_has_a_module_that_runs(lms: LMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_page").mkdir()
    (tmp_path / "own_page" / "programs.py").write_text(block("docs/plugins.md", "python", "# my_package/programs.py"))
    (tmp_path / "own_page" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=lms.url)}))
    lms.script = answers_by(lambda inputs: {"query": "ships", "answer": str(len(inputs.get("context", "")))})
    for name, answer in (("RAG", "78"), ("of_any_signature", "0")):
        program = replace(spec("rag"), code=OwnModules(("own_page.programs:*",)).find(f"own_page.programs:{name}"))
        assert run(native, program).outputs == {"answer": answer}


def test_changed_files_are_not_taken_for_those_of_the_program(
    lms: LMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_changing.py").write_text("import dspy\nclass Mine(dspy.Predict): ...\n")
    allowed = OwnModules(("own_changing:Mine",))
    program = replace(spec("rag"), code=allowed.find("own_changing:Mine"))
    (tmp_path / "own_changing.py").write_text("import dspy\nclass Mine(dspy.ChainOfThought): ...\n")
    native = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=lms.url)}))
    with pytest.raises(NotHere, match="has changed since this worker started"):
        native.create_program(program)
