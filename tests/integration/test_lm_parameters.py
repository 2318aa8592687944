"""The parameters of LM calls: what is sent, what is refused before anything is, and what `n` comes to."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import dspy
import pytest

from adapters.lm import LMAlias, LMCatalog
from adapters.lm_parameters import MEMBERS, may_be_allowed
from adapters.native import NativeAdapter
from adapters.port import Adapter, AdapterError, Outcome, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, LMParameters, Signature
from tests import lm_server
from tests.lm_server import LMServer
from tests.on_an_lm import ON_AN_LM, adapter_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def server() -> Iterator[LMServer]:
    with LMServer() as running:
        yield running


def catalog(server: LMServer) -> LMCatalog:
    def alias(model: str, *parameters: str) -> LMAlias:
        return LMAlias(model, api_base=server.url, secret="KEY", parameters=parameters)

    aliases = {
        "local": alias("openai/gpt-4o-mini", "logit_bias", "top_k"),
        "grown": alias("openai/home-grown", "presence_penalty", "made_up"),
        "reasoning": alias("openai/o3", "logit_bias"),
        "claude": alias("anthropic/claude-sonnet-4-5"),
        "lite": alias("together_ai/some-model", "made_up"),
    }
    return LMCatalog(aliases, {"KEY": "sk-local"}.get)


@pytest.fixture
def native(server: LMServer) -> Iterator[NativeAdapter]:
    adapter = NativeAdapter(catalog(server))
    yield adapter
    adapter.close()


MEMBERS_OF_PROGRAM = ("module", "prompt_adapter", "extraction_lm", "lms")


def spec(model: str, signature: str = "question -> answer", **given: Any) -> ProgramSpec:
    module = {key: given.pop(key) for key in MEMBERS_OF_PROGRAM if key in given}
    lm = LM(model=model, parameters=LMParameters(**given))
    return ProgramSpec("native", Signature.parse(signature), Configuration(lm=lm, **module))


def run(adapter: Adapter, program: ProgramSpec, **options: Any) -> Outcome:
    return adapter.execute_program(adapter.create_program(program), {"question": "why"}, RunOptions("run", **options))


def sent(server: LMServer) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in request.body.items() if name not in ("model", "messages")}
        for request in server.requests
    ]


@pytest.mark.parametrize("kind", ON_AN_LM)
def test_each_parameter_is_sent(server: LMServer, kind: str, request: pytest.FixtureRequest) -> None:
    bias = {"50256": -100}
    with adapter_of(kind, catalog(server), lambda: request.getfixturevalue("server_of_children")) as adapter:
        run(adapter, spec("local", seed=7, max_completion_tokens=90, provider={"logit_bias": bias}))
        run(adapter, spec("reasoning", reasoning_effort="low", max_completion_tokens=90))
        run(adapter, spec("grown", reasoning_effort="high", provider={"presence_penalty": 0.5}), seed=11)
    first, second, third = sent(server)
    assert (first.pop("max_tokens", None) or first.pop("max_completion_tokens")) == 90
    assert first == {"seed": 7, "logit_bias": bias}
    assert second == {"reasoning_effort": "low", "max_completion_tokens": 90}
    assert third == {"reasoning_effort": "high", "presence_penalty": 0.5, "seed": 11}


@pytest.mark.parametrize(
    ("model", "given", "field"),
    [
        ("local", {"reasoning_effort": "low"}, "lm.parameters.reasoning_effort: 'openai/gpt-4o-mini' does not take it"),
        ("local", {"reasoning_effort": "most"}, "lm.parameters.reasoning_effort"),
        ("grown", {"reasoning_effort": "most"}, "lm.parameters.reasoning_effort: 'openai/home-grown' does not take it"),
        ("local", {"provider": {"top_k": 4}}, "lm.parameters.provider.top_k: 'openai/gpt-4o-mini' does not take it"),
        ("grown", {"provider": {"made_up": 1}}, "lm.parameters.provider.made_up"),
        ("local", {"provider": {"user": "x"}}, "parameters.provider.user: 'local' does not allow it"),
        ("reasoning", {"temperature": 0.2}, "lm.parameters.temperature"),
        ("reasoning", {"top_p": 0.2}, "lm.parameters.top_p"),
        ("reasoning", {"provider": {"logit_bias": {}}}, "lm.parameters.provider.logit_bias"),
        ("claude", {"seed": 7}, "lm.parameters.seed: 'anthropic/claude-sonnet-4-5' does not take it"),
        ("local", {"n": 3, "module": "ReAct"}, "lm.parameters.n: ReAct uses one completion"),
        (
            "local",
            {"module": "ReAct", "lms": {"react": LM(model="grown", parameters=LMParameters(n=2))}},
            "lms.react.parameters.n: ReAct uses one completion",
        ),
        (
            "local",
            {"prompt_adapter": "two_step", "extraction_lm": LM(model="grown", parameters=LMParameters(n=2))},
            "extraction_lm.parameters.n: two_step uses one completion",
        ),
        (
            "local",
            {"prompt_adapter": "two_step", "extraction_lm": LM(model="reasoning", parameters=LMParameters(top_p=0.5))},
            "extraction_lm.parameters.top_p",
        ),
    ],
    ids=repr,
)
def test_what_cannot_be_sent_is_refused_when_it_is_built(
    native: NativeAdapter, server: LMServer, model: str, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(AdapterError) as caught:
        native.create_program(spec(model, **given))
    assert caught.value.code is ErrorCode.PERMANENT
    assert caught.value.message.startswith(field)
    assert not server.requests


def test_a_default_that_the_model_does_not_take_is_not_sent(native: NativeAdapter, server: LMServer) -> None:
    run(native, spec("reasoning", n=2))
    run(native, spec("reasoning", module="MultiChainComparison"))
    assert [body for body in sent(server) if body] == []


def test_n_makes_as_many_calls_and_the_most_frequent_outputs_are_taken(native: NativeAdapter, server: LMServer) -> None:
    said = ["[[ ## reasoning ## ]]\nway {}\n\n[[ ## answer ## ]]\n{}".format(*it) for it in enumerate("baaca")]
    server.script = lm_server.in_turn(*map(lm_server.text, said))
    outcome = run(native, spec("local", n=5, module="ChainOfThought"), seed=3)
    assert outcome.outputs == {"answer": "a"}
    assert outcome.usage.calls == len(outcome.usage.lm_calls) == 5
    assert sent(server) == [{"temperature": 0.7, "seed": 3 + number} for number in range(5)]


def test_of_equally_frequent_outputs_the_first_is_taken_and_what_does_not_fit_has_no_vote(
    native: NativeAdapter, server: LMServer
) -> None:
    program = spec("local", "question -> answer: Optional[int]", n=4, temperature=1.0, seed=5)
    server.script = lm_server.in_turn(*(lm_server.text(f"[[ ## answer ## ]]\n{it}") for it in (9, 4, 4, 9)))
    assert run(native, program).outputs == {"answer": 9}
    assert sent(server) == [{"temperature": 1.0, "seed": 5 + number} for number in range(4)]
    most = {"type": "integer", "maximum": 5}
    signature = {"inputs": [{"name": "question", "type": "str"}], "outputs": [{"name": "answer", "type": most}]}
    program = ProgramSpec("native", Signature.parse(signature), program.configuration)
    server.script = lm_server.in_turn(*(lm_server.text(f"[[ ## answer ## ]]\n{it}") for it in (9, 9, 9, 4)))
    assert run(native, program).outputs == {"answer": 4}


def test_several_completions_of_one_predictors_lm(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.in_turn(*(lm_server.text(f"[[ ## answer ## ]]\n{it}") for it in "abb"))
    judge = LM(model="grown", parameters=LMParameters(n=3))
    assert run(native, spec("local", lms={"self": judge})).outputs == {"answer": "b"}
    assert {request.body["model"] for request in server.requests} == {"home-grown"}


def test_one_completion_that_was_cut_off_ends_the_run(native: NativeAdapter, server: LMServer) -> None:
    cut = lm_server.text("[[ ## answer ## ]]\na", finish_reason="length")
    server.script = lm_server.in_turn(lm_server.text("[[ ## answer ## ]]\na"), cut)
    with pytest.raises(AdapterError) as caught:
        run(native, spec("local", n=3))
    assert (caught.value.code, caught.value.usage.calls) == (ErrorCode.TRUNCATED, 2)


def test_no_alias_can_allow_what_decides_where_a_call_goes_or_what_it_asks() -> None:
    own = set(inspect.signature(dspy.LM.__init__).parameters) - {"self", "kwargs"}
    others = "messages api_base base_url api_key headers extra_headers extra_body tools stream vertex_credentials X n"
    for name in sorted({*own, *others.split(), *MEMBERS}):
        assert not may_be_allowed(name), name
        with pytest.raises(ValueError, match="cannot be allowed"):
            LMAlias("openai/x", parameters=(name,))
    names = "logit_bias top_k presence_penalty frequency_penalty verbosity min_p user service_tier top_logprobs"
    LMAlias("openai/x", parameters=tuple(names.split()))


# What an execution sets


def overridable(*names: str, model: str = "local", **given: Any) -> ProgramSpec:
    module = {key: given.pop(key) for key in ("module", "prompt_adapter", "extraction_lm", "fallbacks") if key in given}
    lm = LM(model=model, parameters=LMParameters(**given), overridable=names)
    return ProgramSpec("native", Signature.parse("question -> answer"), Configuration(lm=lm, **module))


@pytest.mark.parametrize("kind", ON_AN_LM)
def test_a_run_sets_what_the_lm_lets_it_set(server: LMServer, kind: str, request: pytest.FixtureRequest) -> None:
    program = overridable("temperature", "max_tokens", "logit_bias", "seed", temperature=0.2, top_p=0.9, max_tokens=50)
    others = LMParameters(temperature=0.8, top_p=0.1, max_tokens=70, seed=4, provider={"logit_bias": {"5": 1}})
    with adapter_of(kind, catalog(server), lambda: request.getfixturevalue("server_of_children")) as adapter:
        run(adapter, program, lm=others)
        run(adapter, program)
        run(adapter, program, lm=LMParameters(seed=4), seed=9)
    first, second, third = sent(server)
    tokens = [body.pop("max_tokens", None) or body.pop("max_completion_tokens") for body in (first, second, third)]
    assert tokens == [70, 50, 50]
    assert first == {"temperature": 0.8, "top_p": 0.9, "seed": 4, "logit_bias": {"5": 1}}
    assert second == {"temperature": 0.2, "top_p": 0.9}
    assert third == {"temperature": 0.2, "top_p": 0.9, "seed": 9}


def test_each_lm_says_what_a_run_may_set(native: NativeAdapter, server: LMServer) -> None:
    second = LM(model="grown", overridable=("max_completion_tokens",))
    program = overridable("n", "temperature", prompt_adapter="two_step", extraction_lm=second, temperature=0.0)
    server.script = lm_server.in_turn(lm_server.text("blue"), lm_server.fields(answer="blue"))
    with pytest.raises(AdapterError, match=r"lm\.overridable\.n") as caught:
        run(native, overridable("n", module="ReAct"))
    assert caught.value.code is ErrorCode.PERMANENT
    run(native, program, lm=LMParameters(temperature=0.5, max_completion_tokens=40))
    first, other = sent(server)
    assert first == {"temperature": 0.5}
    assert (other.pop("max_tokens", None) or other.pop("max_completion_tokens"), other) == (40, {})


def test_a_run_may_ask_for_several_completions(native: NativeAdapter, server: LMServer) -> None:
    server.script = lm_server.in_turn(*(lm_server.text(f"[[ ## answer ## ]]\n{it}") for it in "abb"))
    program = overridable("n", "temperature", "max_completion_tokens", max_tokens=9)
    given = LMParameters(n=3, temperature=0.4, max_completion_tokens=20)
    assert run(native, program, lm=given).outputs == {"answer": "b"}
    assert [body["temperature"] for body in sent(server)] == [0.4] * 3
    assert {body.get("max_tokens") or body["max_completion_tokens"] for body in sent(server)} == {20}


def test_what_a_run_sets_and_the_model_does_not_take_is_invalid_input(native: NativeAdapter, server: LMServer) -> None:
    with pytest.raises(AdapterError, match=r"options\.lm\.temperature") as caught:
        run(native, overridable("temperature", model="reasoning"), lm=LMParameters(temperature=0.2))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    with pytest.raises(AdapterError, match=r"options\.lm\.seed") as caught:
        run(native, overridable("seed", model="claude"), lm=LMParameters(seed=2))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert not server.requests


def test_what_no_alias_allows_is_not_overridable(native: NativeAdapter) -> None:
    for name in ("top_logprobs", "api_base", "provider"):
        with pytest.raises(AdapterError, match=f"overridable: '{name}' is not one of") as caught:
            native.create_program(overridable(name))
        assert caught.value.code is ErrorCode.PERMANENT
