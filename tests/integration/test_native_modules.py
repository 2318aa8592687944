"""The modules of the native adapter that need registered code or carry a state, over the whole way to an LM."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

from adapters.contract import wait_until
from adapters.lm import LMAlias, LMCatalog
from adapters.native import NativeAdapter
from adapters.port import AdapterError, Outcome, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, LMParameters, Signature
from tests import lm_server
from tests.lm_server import LMServer, fields, in_turn

pytestmark = [
    pytest.mark.usefixtures("example_plugin"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument:DeprecationWarning"),
]


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


@pytest.fixture
def native(server: LMServer) -> Iterator[NativeAdapter]:
    adapter = NativeAdapter(LMCatalog({"local": LMAlias("openai/gpt-4o-mini", api_base=server.url)}))
    yield adapter
    adapter.close()


def spec(module: str, signature: Any = "question -> answer", /, **given: Any) -> ProgramSpec:
    configuration = {"lm": {"model": "local"}, "module": module} | given
    return ProgramSpec("native", Signature.parse(signature), Configuration.model_validate(configuration))


def run(adapter: NativeAdapter, program: ProgramSpec, options: RunOptions | None = None, /, **inputs: Any) -> Outcome:
    backend_id = adapter.create_program(program)
    given = program.signature.validate_inputs(inputs or {"question": "why"})
    return adapter.execute_program(backend_id, given, options or RunOptions("run"))


def failure(adapter: NativeAdapter, program: ProgramSpec, options: RunOptions | None = None) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        run(adapter, program, options)
    return caught.value


# BestOfN and Refine

SEARCH = {"N": 4, "reward": "brevity", "threshold": 1.0}


def test_the_best_of_n_is_the_one_with_the_highest_reward(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(*(fields(answer=answer) for answer in ("a b c", "a b", "c d", "a b c d")))
    outcome = run(native, spec("BestOfN", parameters=SEARCH), RunOptions("run", seed=7))
    assert outcome.outputs == {"answer": "a b"}
    assert outcome.usage.calls == len(outcome.usage.lm_calls) == 4
    assert [request.body["temperature"] for request in server.requests] == [1.0] * 4
    assert [request.body["seed"] for request in server.requests] == [7, 8, 9, 10]


def test_an_attempt_that_is_good_enough_is_the_last(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(fields(answer="a b"), fields(answer="a"), fields(answer="b"))
    outcome = run(native, spec("BestOfN", parameters=SEARCH | {"module": "ChainOfThought"}))
    assert outcome.outputs == {"answer": "a"}
    assert outcome.usage.calls == 2
    assert list(server.requests[0].prompt.outputs) == ["reasoning", "answer"]


def test_an_attempt_that_cannot_be_used_counts_as_one(native: NativeAdapter, server: LMServer) -> None:
    unreadable = lm_server.text("It depends.")
    server.script = in_turn(unreadable, unreadable, fields(answer="too long"), fields(answer="x"))
    signature = {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": "answer", "type": {"type": "string", "maxLength": 3}}],
    }
    outcome = run(native, spec("BestOfN", signature, parameters=SEARCH))
    assert outcome.outputs == {"answer": "x"}
    assert outcome.usage.calls == 4  # the first attempt was asked for again, as JSON
    server.script = unreadable
    assert failure(native, spec("BestOfN", parameters=SEARCH)).code is ErrorCode.PARSE_FAILURE


def test_a_search_does_not_go_on_after_what_the_next_attempt_would_meet_too(
    native: NativeAdapter, server: LMServer
) -> None:
    server.script = in_turn(fields(answer="a b"), lm_server.rate_limited(3))
    error = failure(native, spec("BestOfN", parameters=SEARCH))
    assert (error.code, error.retry_after) == (ErrorCode.RATE_LIMITED, 3.0)
    assert error.usage.calls == 2


def test_searches_of_one_program_do_not_mix(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.answers_by(lambda inputs: {"answer": f"{inputs['question']} is long"})
    program = spec("BestOfN", parameters=SEARCH)
    backend_id = native.create_program(program)

    def execute(number: int) -> Any:
        return native.execute_program(backend_id, {"question": f"q{number}"}, RunOptions("run")).outputs["answer"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(execute, range(64))) == [f"q{number} is long" for number in range(64)]


def test_refine_gives_the_next_attempt_a_hint(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(
        fields(answer="a b c"), fields(advice="Be brief."), fields(answer="a b"),
        fields(advice="Briefer."), fields(answer="a"),
    )  # fmt: skip
    outcome = run(native, spec("Refine", parameters=SEARCH))
    assert outcome.outputs == {"answer": "a"}
    assert outcome.usage.calls == 5
    asked = [request.prompt for request in server.requests]
    assert [prompt.inputs.get("hint_") for prompt in asked] == [None, None, "Be brief.", None, "Briefer."]
    assert "def brevity" in asked[1].inputs["reward_code"]
    assert json.loads(asked[3].inputs["task_inputs"]) == {"question": "why"}


def test_refine_goes_on_without_a_hint_where_there_is_none(native: NativeAdapter, server: LMServer) -> None:
    unreadable = lm_server.text("I have no advice.")
    server.script = in_turn(fields(answer="a b"), unreadable, unreadable, fields(answer="a"))
    outcome = run(native, spec("Refine", parameters=SEARCH))
    assert outcome.outputs == {"answer": "a"}
    assert "hint_" not in server.requests[3].prompt.inputs


def test_a_reward_that_fails_is_not_quoted(native: NativeAdapter, server: LMServer) -> None:
    server.script = fields(answer="private")
    error = failure(native, spec("BestOfN", parameters=SEARCH | {"reward": "broken_reward"}))
    assert error.message == "parameters.reward: 'broken_reward' failed with ValueError"
    assert (error.code, error.usage.calls) == (ErrorCode.PERMANENT, 1)


# ReAct


def tool(name: str, **arguments: Any) -> lm_server.Script:
    return fields(next_thought="so", next_tool_name=name, next_tool_args=arguments)


def test_an_agent_calls_tools_and_answers(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(
        tool("capital_of", country="France"),
        tool("count_letters", word="Paris", letter="a"),  # an async function
        tool("capital_of", country="Atlantis"),
        tool("finish"),
        fields(reasoning="I looked", answer="Paris"),
    )
    tools = {"tools": ["capital_of", "count_letters"]}
    outcome = run(native, spec("ReAct", parameters=tools), RunOptions("run", trace=True))
    assert outcome.outputs == {"answer": "Paris"}
    assert outcome.usage.calls == 5
    seen = server.requests[-1].prompt.inputs
    assert [seen[f"observation_{number}"] for number in range(3)] == ["Paris", "1", "failed with KeyError: 'atlantis'"]
    assert "The capital of a country." in server.requests[0].prompt.system
    assert outcome.trace is not None
    steps = [(step.kind, step.name) for step in outcome.trace]
    assert steps[:3] == [("lm_call", "openai/gpt-4o-mini"), ("predictor", "react"), ("tool", "capital_of")]
    assert steps[-1] == ("predictor", "extract.predict")
    assert outcome.trace[2].details == {"arguments": {"country": "France"}, "result": "Paris"}


def test_an_agent_calls_tools_so_often_and_no_more(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(*[tool("capital_of", country="Italy")] * 2, fields(answer="Rome"))
    outcome = run(native, spec("ReAct", parameters={"tools": ["capital_of"], "max_iters": 2}))
    assert (outcome.outputs, outcome.usage.calls) == ({"answer": "Rome"}, 3)


def test_a_typed_signature_goes_all_the_way_through_an_agent(native: NativeAdapter, server: LMServer) -> None:
    address = {
        "type": "object",
        "properties": {"street": {"type": "string", "minLength": 3}, "number": {"type": "integer", "minimum": 1}},
        "required": ["street", "number"],
        "additionalProperties": False,
    }
    signature = {
        "inputs": [{"name": "people", "type": {"type": "array", "items": address}}],
        "outputs": [
            {"name": "best", "type": address},
            {"name": "label", "type": "Literal['near', 'far']"},
            {"name": "score", "type": {"type": "number", "minimum": 0, "maximum": 1}},
        ],
    }
    best = {"street": "Elm", "number": 3}
    server.script = in_turn(tool("finish"), fields(best=best, label="far", score=0.5))
    program = spec("ReAct", signature, parameters={"tools": ["capital_of"]})
    assert run(native, program, people=[best]).outputs == {"best": best, "label": "far", "score": 0.5}
    server.script = in_turn(tool("finish"), fields(best=best, label="far", score=1.5))
    with pytest.raises(AdapterError) as caught:
        run(native, program, people=[best])
    assert caught.value.code is ErrorCode.INVALID_OUTPUT
    assert caught.value.message.startswith("score: ")


@pytest.mark.parametrize(
    ("module", "parameters", "message"),
    [
        ("BestOfN", {"threshold": 1.0}, "parameters.reward: is missing"),
        ("BestOfN", {"reward": "nothing", "threshold": 1.0}, "(known: brevity, broken_reward)"),
        ("BestOfN", {"reward": "capital_of", "threshold": 1.0}, "parameters.reward: 'capital_of' is not one of"),
        ("BestOfN", {"reward": "brevity", "threshold": 1.0, "N": 0}, "parameters.N: "),
        ("Refine", {"reward": "brevity", "threshold": 1.0, "module": "ReAct"}, "parameters.module: "),
        ("Refine", {"reward": "lambda i, p: 1", "threshold": 1.0}, "is not one of dspex.rewards"),
        ("ReAct", {}, "parameters.tools: is missing"),
        ("ReAct", {"tools": []}, "parameters.tools: "),
        ("ReAct", {"tools": ["os.system"]}, "(known: capital_of, count_letters)"),
        ("ReAct", {"tools": ["capital_of", "nothing"]}, "parameters.tools.1: 'nothing' is not one of dspex.tools"),
        ("ReAct", {"tools": ["capital_of", "capital_of"]}, "parameters.tools.1: 'capital_of': is listed twice"),
        ("ReAct", {"tools": ["finish"]}, "parameters.tools.0: 'finish'"),
    ],
)
def test_code_is_named_and_must_be_registered(
    native: NativeAdapter, module: str, parameters: dict[str, Any], message: str
) -> None:
    error = failure(native, spec(module, parameters=parameters))
    assert error.code is ErrorCode.PERMANENT
    assert message in error.message


@pytest.mark.parametrize(
    ("module", "signature", "parameters"),
    [
        ("ReAct", "max_iters: int -> answer", {"tools": ["capital_of"]}),
        ("ReAct", "trajectory -> answer", {"tools": ["capital_of"]}),
        ("Refine", "hint_ -> answer", SEARCH),
        ("BestOfN", "question -> reasoning", SEARCH),
    ],
)
def test_a_field_that_the_module_adds_is_refused(
    native: NativeAdapter, module: str, signature: str, parameters: dict[str, Any]
) -> None:
    with pytest.raises(AdapterError, match="rename yours"):
        native.create_program(spec(module, signature, parameters=parameters))


# State


def optimized(module: str = "ChainOfThought") -> dict[str, Any]:
    """What an optimizer of DSPy leaves, as its `dump_state` writes it."""
    program = getattr(dspy, module)("question -> answer")
    demos = [dspy.Example(question="when", answer="then").with_inputs("question")]
    compiled = dspy.LabeledFewShot(k=1).compile(program, trainset=demos)
    for predictor in compiled.predictors():
        predictor.signature = predictor.signature.with_instructions("Answer in one word.")
        predictor.signature = predictor.signature.with_updated_fields("question", desc="what they ask")
    state: dict[str, Any] = json.loads(json.dumps(compiled.dump_state()))
    digest = Signature.parse("question -> answer").digest
    return {"signature_digest": digest, "module": module, "predictors": state}


@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
def test_an_optimized_state_is_in_the_prompt(native: NativeAdapter, server: LMServer, module: str) -> None:
    outcome = run(native, spec(module, state=optimized(module)))
    assert outcome.outputs["answer"]
    messages = server.requests[0].body["messages"]
    assert "Answer in one word." in messages[0]["content"]
    assert "what they ask" in messages[0]["content"]
    assert ["when" in messages[1]["content"], "then" in messages[2]["content"]] == [True, True]
    plain = run(native, spec(module))
    assert len(server.requests[1].body["messages"]) == 2
    assert plain.outputs["answer"]


def test_the_attempts_of_refine_have_the_state_too(native: NativeAdapter, server: LMServer) -> None:
    state = optimized("Predict")
    state = state | {"module": "Refine", "predictors": {"module": state["predictors"]}}
    server.script = in_turn(fields(answer="a b"), fields(advice="Brief."), fields(answer="a"))
    run(native, spec("Refine", parameters=SEARCH, state=state))
    for request in (server.requests[0], server.requests[2]):
        assert "Answer in one word." in request.body["messages"][0]["content"]


def changed(**demo: Any) -> dict[str, Any]:
    state = optimized()
    state["predictors"]["predict"]["demos"] = [demo]
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (optimized() | {"signature_digest": "0" * 64}, "state.signature_digest: was found for another signature"),
        (optimized() | {"predictors": {"other": {}}}, "state.predictors.other: ChainOfThought has no such predictor"),
        (changed(question=3), "state.predictors.predict.demos.0.question: "),
        (changed(secret="y"), "state.predictors.predict.demos.0: has none of the fields question, reasoning, answer"),
        (changed(answer=["x"]), "state.predictors.predict.demos.0.answer: "),
        (changed(reasoning={"a": 1}), "state.predictors.predict.demos.0.reasoning: "),
        (changed(augmented="yes"), "state.predictors.predict.demos.0.augmented: "),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_field(
    native: NativeAdapter, server: LMServer, state: dict[str, Any], message: str
) -> None:
    error = failure(native, spec("ChainOfThought", state=state))
    assert error.code is ErrorCode.PERMANENT
    assert error.message.startswith(message)
    assert not server.requests


def test_texts_of_a_state_must_be_for_all_fields(native: NativeAdapter) -> None:
    short = optimized()
    short["predictors"]["predict"]["signature"]["fields"].pop()
    where = "state.predictors.predict.signature"
    assert failure(native, spec("ChainOfThought", state=short)).message.startswith(f"{where}.fields: there are 2, for")


def test_the_constraints_of_the_signature_hold_for_demos(native: NativeAdapter) -> None:
    signature = {
        "inputs": [{"name": "question", "type": "str"}],
        "outputs": [{"name": "score", "type": {"type": "number", "maximum": 1}}],
    }
    state: dict[str, Any] = {
        "signature_digest": Signature.parse(signature).digest,
        "module": "Predict",
        "predictors": {"self": {"demos": [{"question": "x", "score": 0.5}]}},
    }
    assert run(native, spec("Predict", signature, state=state)).outputs
    wrong = copy.deepcopy(state)
    wrong["predictors"]["self"]["demos"][0]["score"] = 7
    message = failure(native, spec("Predict", signature, state=wrong)).message
    assert message.startswith("state.predictors.self.demos.0.score: ")


# Stopping, and looking into a run


def test_a_cancelled_run_makes_no_further_lm_call(native: NativeAdapter, server: LMServer) -> None:
    answered = threading.Event()
    server.script = lm_server.held(answered)
    program = spec("MultiChainComparison", parameters={"M": 3})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, native, program, RunOptions("mine"))
        wait_until(lambda: len(server.requests) == 1)
        assert native.cancel("mine")
        answered.set()
        error = future.exception(60)
    assert isinstance(error, AdapterError)
    assert (error.code, error.usage.calls, len(server.requests)) == (ErrorCode.CANCELLED, 1, 1)
    assert error.usage.input_tokens


def test_no_lm_call_begins_after_the_timeout(
    native: NativeAdapter, server: LMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 2.0, 100.0])
    monkeypatch.setattr("adapters.native.recorder.time.monotonic", lambda: next(clock))
    error = failure(native, spec("MultiChainComparison"), RunOptions("run", timeout=60))
    assert (error.code, error.usage.calls) == (ErrorCode.TIMEOUT, 1)


def test_an_lm_call_waits_no_longer_than_the_run_has(native: NativeAdapter, server: LMServer) -> None:
    end = threading.Event()
    server.script = lm_server.held(end)
    error = failure(native, spec("Predict"), RunOptions("run", timeout=0.1))
    assert (error.code, error.usage.calls) == (ErrorCode.TIMEOUT, 1)
    parameters = LMParameters(timeout=0.1)
    error = failure(native, spec("Predict", lm=LM(model="local", parameters=parameters)), RunOptions("run", timeout=60))
    assert error.code is ErrorCode.TIMEOUT
    end.set()


def test_a_trace_of_a_failed_run_is_with_its_error(native: NativeAdapter, server: LMServer) -> None:
    server.script = in_turn(fields(answer="a b"), lm_server.server_error)
    error = failure(native, spec("BestOfN", parameters=SEARCH), RunOptions("run", trace=True))
    assert error.trace is not None
    assert [(step.kind, step.name, "error" in step.details) for step in error.trace] == [
        ("lm_call", "openai/gpt-4o-mini", False),
        ("predictor", "module", False),
        ("lm_call", "openai/gpt-4o-mini", True),
        ("predictor", "module", True),
    ]


# Memory


def test_no_object_stays_behind_after_a_run(native: NativeAdapter, server: LMServer) -> None:
    """Of any module, of runs that fail, and of traced ones; `benchmarks.adapters` looks at 20,000 calls."""
    scripts = [
        (spec("Predict"), [fields(answer="x"), lm_server.text("?"), lm_server.server_error]),
        (spec("BestOfN", parameters=SEARCH), [fields(answer="a b")]),
        (spec("Refine", parameters=SEARCH), [fields(answer="a b", advice="c d")]),
        (spec("ReAct", parameters={"tools": ["capital_of"], "max_iters": 2}), [tool("capital_of", country="Italy")]),
    ]

    def run_all() -> int:
        for program, answers in scripts:
            for server.script in answers:
                with contextlib.suppress(AdapterError):
                    run(native, program, RunOptions("run", seed=1, timeout=60, trace=True))
        server.requests.clear()
        gc.collect()
        return len(gc.get_objects())

    counted = [run_all() for _ in range(16)]
    assert counted[-1] - counted[5] < 100  # what the interpreter keeps by itself; a run has thousands
    assert native.stats().runs == 16 * 6
