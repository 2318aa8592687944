"""Modules of one's own, by entry point and by the operator's allow-list, on both adapters that run DSPy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY

from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.own_modules import OwnModules
from adapters.port import Adapter, AdapterError, NotHere, Outcome, ProgramSpec, RunOptions, ShowsPrompts
from adapters.python_port import PythonPortAdapter
from adapters.python_port.limits import Limits
from adapters.python_port.server import Server
from dspex import Configuration, ErrorCode, Signature
from tests.lm_server import Answer, LMServer, Request, answers_by, fields, in_turn, rate_limited
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


def test_the_prompt_of_its_first_call_is_shown_and_not_sent(adapter: Adapter, lms: LMServer) -> None:
    assert isinstance(adapter, ShowsPrompts)
    program = spec("rag", parameters={"k": 2})
    prompt = adapter.first_prompt(adapter.create_program(program), {"question": "what is apt"})
    assert not lms.requests
    lms.script = in_turn(fields(query="shell on another machine"), fields(answer="a remote shell"))
    run(adapter, program)
    assert list(prompt.messages) == lms.requests[0].body["messages"]


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


def opinions(inputs: Mapping[str, str]) -> dict[str, Any]:
    if "opinions" in inputs:
        return {"answer": inputs["opinions"]}
    return {"opinion": f"opinion {inputs['member']}", "reasoning": "x"}


def test_an_async_module_makes_its_calls_at_once(adapter: Adapter, lms: LMServer) -> None:
    at_once = Barrier(8)

    def answer(inputs: Mapping[str, str]) -> dict[str, Any]:
        if "member" in inputs:
            at_once.wait(20)
        return opinions(inputs)

    lms.script = answers_by(answer)
    options = RunOptions("run", seed=100, trace=True)
    program = spec(f"{PROGRAMS}:Panel", parameters={"size": 8})
    outcome = adapter.execute_program(adapter.create_program(program), {"question": "why"}, options)
    assert [f"opinion {number}" in outcome.outputs["answer"] for number in range(8)] == [True] * 8
    assert (outcome.usage.calls, len(outcome.usage.lm_calls)) == (9, 9)
    assert all(call.finish_reason == "stop" and call.cost for call in outcome.usage.lm_calls)
    assert sorted(request.body["seed"] for request in lms.requests) == list(range(100, 109))


def test_threads_of_dspy_are_of_the_run(adapter: Adapter, lms: LMServer) -> None:
    lms.script = answers_by(opinions)
    outcome = run(adapter, spec(f"{PROGRAMS}:Parallel"))
    assert outcome.outputs == {"answer": " ".join(f"opinion {number}" for number in range(8))}
    assert (outcome.usage.calls, len(outcome.usage.lm_calls)) == (8, 8)


def test_an_error_of_one_of_many_calls_is_told(adapter: Adapter, lms: LMServer) -> None:
    lms.script = lambda request: rate_limited(3)(request) if request.prompt.inputs["member"] == "5" else slow(request)

    def slow(request: Request) -> Answer:
        time.sleep(0.1)  # it is answered after the error
        return answers_by(opinions)(request)

    error = failure(lambda: run(adapter, spec(f"{PROGRAMS}:Panel")))
    assert (error.code, error.retry_after) == (ErrorCode.RATE_LIMITED, 3.0)
    assert error.usage.calls == len(lms.requests)  # those that had begun, and were waited for


def test_an_async_tool_runs(adapter: Adapter, lms: LMServer) -> None:
    lms.script = in_turn(
        fields(next_thought="count", next_tool_name="count_letters", next_tool_args={"word": "banana", "letter": "a"}),
        fields(next_thought="done", next_tool_name="finish", next_tool_args={}),
        fields(reasoning="counted", answer="three"),
    )
    outcome = run(adapter, spec(f"{PROGRAMS}:Agent"))
    assert outcome.outputs == {"answer": "three"}
    assert lms.requests[1].prompt.inputs["observation_0"] == "3"


def test_a_thread_without_the_run_is_told_apart(adapter: Adapter, lms: LMServer) -> None:
    error = failure(lambda: run(adapter, spec(f"{PROGRAMS}:Stray")))
    assert error.code is ErrorCode.PERMANENT
    assert "called outside of the run" in error.message
    assert len(lms.requests) == 0


def test_an_lm_of_its_own_is_counted_without_a_price(adapter: Adapter, lms: LMServer) -> None:
    lms.script = fields(answer="x")
    before = len(GLOBAL_HISTORY)  # tests that run DSPy itself leave some there
    outcome = run(adapter, spec(f"{PROGRAMS}:OfItsOwn", parameters={"api_base": lms.url}))
    assert (outcome.usage.calls, outcome.usage.cost) == (1, None)
    assert outcome.usage.input_tokens
    assert lms.requests[0].authorization == "Bearer its-own"
    assert len(GLOBAL_HISTORY) == before


def test_a_copy_of_an_lm_calls_as_it_does(adapter: Adapter, lms: LMServer) -> None:
    lms.script = fields(answer="x")
    outcome = run(adapter, spec(f"{PROGRAMS}:Copies", lms={"ask": {"model": "local"}}))
    assert (outcome.usage.calls, len(outcome.usage.lm_calls)) == (2, 2)
    assert lms.requests[1].body["temperature"] == 0.9


LMS = {"mem*": {"model": "cheap", "parameters": {"temperature": 0.5}}, "judge": {"model": "judge"}}


def test_predictors_have_lms_of_their_own(lms: LMServer, request: pytest.FixtureRequest) -> None:
    lms.script = answers_by(opinions)
    catalog = LMCatalog(
        {
            name: LMAlias(f"openai/{name}", api_base=lms.url, secret=f"{name.upper()}_API_KEY")
            for name in ("local", "cheap", "judge")
        },
        secret={name: f"key-{name}" for name in ("LOCAL_API_KEY", "CHEAP_API_KEY", "JUDGE_API_KEY")}.get,
    )
    for made in (NativeAdapter(catalog), PythonPortAdapter(catalog, server=request.getfixturevalue("children"))):
        lms.requests.clear()
        outcome = run(made, spec(f"{PROGRAMS}:Panel", parameters={"size": 2}, lms=LMS))
        asked = [(asked.body["model"], asked.authorization, asked.body.get("temperature")) for asked in lms.requests]
        assert asked == [("cheap", "Bearer key-CHEAP_API_KEY", 0.5)] * 2 + [("judge", "Bearer key-JUDGE_API_KEY", None)]
        assert [call.model for call in outcome.usage.lm_calls] == ["openai/cheap"] * 2 + ["openai/judge"]
        with pytest.raises(AdapterError, match=r"lms.nobody: no predictor has this name \(there are: member.predict, "):
            made.create_program(spec(f"{PROGRAMS}:Panel", lms={"nobody": {"model": "local"}}))
        with pytest.raises(AdapterError, match=r"lms\.judge\.model: .unknown. is neither"):
            made.create_program(spec(f"{PROGRAMS}:Panel", lms={"judge": {"model": "unknown"}}))
        made.close()


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
