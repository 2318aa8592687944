"""The mock adapter: the same outputs everywhere, always fitting, failing on demand, without DSPy."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from adapters.mock import MockAdapter
from adapters.mock.draws import Draws
from adapters.port import AdapterError, Outcome, ProgramSpec, RunOptions
from dspex import LM, Configuration, ErrorCode, Signature
from tests.pages import block
from tests.sizes import sized
from tests.strategies import signatures, values

SIGNATURE = "question: str, k: int -> answer: str, score: float, label: Literal['a', 'b'], tags: list[str]"


def run(
    signature: Any, inputs: dict[str, Any], seed: int | None = None, adapter: MockAdapter | None = None, **given: Any
) -> Outcome:
    adapter = adapter or MockAdapter()
    spec = ProgramSpec("mock", Signature.parse(signature), Configuration(**given))
    backend_id = adapter.create_program(spec)
    return adapter.execute_program(backend_id, spec.signature.validate_inputs(inputs), RunOptions("run", seed=seed))


@settings(deadline=None, max_examples=sized(60, 200), suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_outputs_fit_any_signature(data: st.DataObject) -> None:
    signature = Signature.parse(data.draw(signatures(), label="signature"))
    schemas = {field.name: field.json_schema() for field in signature.inputs}
    inputs = {name: data.draw(values(schema), label=name) for name, schema in schemas.items()}
    seed = data.draw(st.none() | st.integers(0, 2**63 - 1), label="seed")
    outputs = run(signature, inputs, seed).outputs
    assert signature.validate_outputs(outputs) == outputs
    Draft202012Validator(signature.output_schema()).validate(outputs)
    assert json.loads(json.dumps(outputs)) == outputs
    assert run(signature, inputs, seed).outputs == outputs


def test_outputs_follow_signature_inputs_and_seed_and_nothing_else() -> None:
    base = run(SIGNATURE, {"question": "why", "k": 1}).outputs
    assert run(SIGNATURE, {"k": 1, "question": "why"}).outputs == base
    assert run({"arrow": SIGNATURE, "name": "other", "version": "2.0.0"}, {"question": "why", "k": 1}).outputs == base
    assert run(SIGNATURE, {"question": "why", "k": 1}, module="ChainOfThought", lm=LM(model="any")).outputs == base
    assert run(SIGNATURE, {"question": "why", "k": 2}).outputs != base
    assert run(SIGNATURE, {"question": "why", "k": 1}, seed=1).outputs != base
    assert run({"arrow": SIGNATURE, "instructions": "Briefly."}, {"question": "why", "k": 1}).outputs != base


def test_outputs_are_the_same_in_another_process_and_in_another_release() -> None:
    program = f"""
        from adapters.mock import MockAdapter
        from adapters.port import ProgramSpec, RunOptions
        from dspex import Signature
        import json, sys
        adapter, spec = MockAdapter(), ProgramSpec("mock", Signature.parse({SIGNATURE!r}))
        backend_id = adapter.create_program(spec)
        outcome = adapter.execute_program(backend_id, {{"question": "why", "k": 1}}, RunOptions("run", seed=7))
        assert "dspy" not in sys.modules and "litellm" not in sys.modules
        print(json.dumps(outcome.outputs))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    printed = subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": ":".join(sys.path)}).stdout
    outputs = run(SIGNATURE, {"question": "why", "k": 1}, seed=7).outputs
    assert json.loads(printed) == outputs
    # Written down: what callers compare with must not change with a release.
    assert outputs == EXPECTED


EXPECTED = {
    "answer": "mock answer 6fbd",
    "score": 11.12,
    "label": "a",
    "tags": ["mock tags 5a48", "mock tags a0bb"],
}


def test_draws_are_those_of_the_published_algorithm() -> None:
    draws = Draws()
    draws._state = 1234567
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [draws.bits() for _ in expected] == expected


@pytest.mark.parametrize("limit", [1, 2, 7, 2**64, 2**70, 10**40])
def test_draws_stay_below_their_limit(limit: int) -> None:
    draws = Draws("x")
    drawn = [draws.below(limit) for _ in range(200)]
    assert all(0 <= number < limit for number in drawn)
    assert limit < 3 or len(set(drawn)) > 5
    assert max(drawn) >= limit // 2


def test_texts_can_be_read() -> None:
    assert str(run("question -> short_answer", {"question": "why"}).outputs["short_answer"]).startswith(
        "mock short answer "
    )


def test_usage_is_a_call_that_costs_nothing() -> None:
    short, long = run("q -> a", {"q": "x"}).usage, run("q -> a", {"q": "x" * 4_000}).usage
    assert (short.calls, short.cost) == (1, 0.0)
    assert long.input_tokens is not None
    assert short.input_tokens is not None
    assert 999 <= long.input_tokens - short.input_tokens <= 1_000
    assert short == run("q -> a", {"q": "x"}).usage


@pytest.mark.parametrize("code", ErrorCode)
def test_it_fails_with_any_code_on_the_inputs_it_is_told(code: ErrorCode) -> None:
    parameters = {"fail": {code.value: [{"q": "a"}, {"q": "b", "k": 2}]}}
    for inputs in ({"q": "a", "k": 1}, {"q": "b", "k": 2}):
        with pytest.raises(AdapterError) as caught:
            run("q, k: int -> a", inputs, parameters=parameters)
        assert caught.value.code is code
        assert caught.value.usage.calls == 1
    for inputs in ({"q": "b", "k": 1}, {"q": "c", "k": 2}):
        assert run("q, k: int -> a", inputs, parameters=parameters).outputs


def test_a_failure_for_some_inputs_goes_before_one_for_all_whatever_the_order_in_json() -> None:
    for fail in ({"timeout": "always", "auth": [{"q": "a"}]}, {"auth": [{"q": "a"}], "timeout": "always"}):
        codes = []
        for q in "ab":
            with pytest.raises(AdapterError) as caught:
                run("q -> a", {"q": q}, parameters={"fail": fail})
            codes.append(caught.value.code)
        assert codes == [ErrorCode.AUTH, ErrorCode.TIMEOUT]


def waits_of_runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that runs wait from now on; none does."""
    waited: list[float] = []

    class Cancelled(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waited.append(timeout)
            return False

    # Of runs only: a thread of this process that waits for something else is none of ours.
    monkeypatch.setattr("adapters.runs.threading", SimpleNamespace(Event=Cancelled, Lock=threading.Lock))
    return waited


def test_latency_passes_before_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = waits_of_runs(monkeypatch)
    run("q -> a", {"q": "x"}, parameters={"latency_ms": 250})
    run("q -> a", {"q": "x"})
    assert waited == [0.25]


def latencies(monkeypatch: pytest.MonkeyPatch, latency: dict[str, Any], runs: int = 200) -> list[float]:
    """The milliseconds that so many runs wait."""
    waited = waits_of_runs(monkeypatch)
    for number in range(runs):
        run("q -> a", {"q": str(number)}, parameters={"latency_ms": latency})
    return [seconds * 1000 for seconds in waited]


@pytest.mark.parametrize(
    ("latency", "median"),
    [
        ({"distribution": "uniform", "low": 100, "high": 300}, 200),
        ({"distribution": "normal", "mean": 200, "deviation": 40}, 200),
        ({"distribution": "lognormal", "median": 200, "sigma": 0.3}, 200),
    ],
    ids=lambda value: value["distribution"] if isinstance(value, dict) else "",
)
def test_latency_follows_its_distribution_and_is_the_same_again(
    monkeypatch: pytest.MonkeyPatch, latency: dict[str, Any], median: float
) -> None:
    waited = latencies(monkeypatch, latency)
    assert latencies(monkeypatch, latency) == waited
    assert len(set(waited)) == len(waited)
    assert statistics.median(waited) == pytest.approx(median, rel=0.1)
    assert 20 < statistics.stdev(waited) < 100


def test_latency_is_never_below_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = latencies(monkeypatch, {"distribution": "normal", "mean": 1, "deviation": 1000})
    assert min(waited) > 0
    assert 50 < len(waited) < 150  # half of the draws are below nothing: those do not wait at all


def codes(fail: dict[str, Any], seed: int | None = None, runs: int = 400) -> list[ErrorCode | None]:
    """What so many runs end with; None is success."""
    ended: list[ErrorCode | None] = []
    for number in range(runs):
        try:
            run("q -> a", {"q": str(number)}, seed, parameters={"fail": fail})
            ended.append(None)
        except AdapterError as error:
            ended.append(error.code)
    return ended


def test_a_rate_of_the_runs_fails_and_they_are_the_same_ones_again() -> None:
    ended = codes({"rate_limited": {"rate": 0.2}, "timeout": {"rate": 0.1}})
    assert codes({"timeout": {"rate": 0.1}, "rate_limited": {"rate": 0.2}}) == ended
    assert codes({"rate_limited": {"rate": 0.2}, "timeout": {"rate": 0.1}}, seed=1) != ended
    assert 50 < ended.count(ErrorCode.RATE_LIMITED) < 110
    assert 20 < ended.count(ErrorCode.TIMEOUT) < 60
    assert set(codes({"auth": {"rate": 0}}, runs=20)) == {None}
    assert set(codes({"auth": {"rate": 1}}, runs=20)) == {ErrorCode.AUTH}
    assert set(codes({"auth": {"rate": 0}, "billing": "always"}, runs=20)) == {ErrorCode.BILLING}


def test_outputs_are_those_of_the_first_rule_that_matches() -> None:
    rules = [
        {"when": {"q": "a", "k": 1}, "then": {"x": "first"}},
        {"when": {"q": "a"}, "then": {"x": "second", "n": 7}},
        {"then": {"n": 0}},
    ]

    def outputs(q: str, k: int, **given: Any) -> Mapping[str, Any]:
        return run("q, k: int -> x, n: int", {"q": q, "k": k}, **given).outputs

    usual, ruled = outputs("a", 1), {"outputs": rules}
    assert outputs("a", 1, parameters=ruled) == {"x": "first", "n": usual["n"]}
    assert outputs("a", 2, parameters=ruled) == {"x": "second", "n": 7}
    assert outputs("b", 2, parameters=ruled) == {"x": outputs("b", 2)["x"], "n": 0}


def test_what_a_caller_does_to_outputs_changes_no_rule() -> None:
    adapter, rules = MockAdapter(), [{"then": {"tags": ["a"]}}]
    for _ in range(2):
        outputs = run("q -> tags: list[str]", {"q": "x"}, adapter=adapter, parameters={"outputs": rules}).outputs
        assert outputs == {"tags": ["a"]}
        outputs["tags"].append("b")


def test_usage_is_as_told() -> None:
    told = {"input_tokens": 1_000, "output_tokens": 0, "cost": 0.25}
    usage = run("q -> a", {"q": "x"}, lm=LM(model="openai/x"), parameters={"usage": told}).usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cost) == (1, 1_000, 0, 0.25)
    assert [call.model for call in usage.lm_calls] == ["openai/x"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latency_ms": {"distribution": "pareto"}}, "parameters.latency_ms: is not a known distribution"),
        ({"latency_ms": {"distribution": "uniform", "low": 1}}, "parameters.latency_ms.high: is missing"),
        ({"latency_ms": {"distribution": "uniform", "low": 2, "high": 1}}, "parameters.latency_ms: low is above"),
        ({"fail": {"auth": {"rate": 1.5}}}, "parameters.fail.auth."),
        ({"fail": {"auth": {"share": 0.5}}}, "parameters.fail: 'auth': give"),
        ({"fail": {"auth": {"rate": 0.6}, "timeout": {"rate": 0.6}}}, "parameters: fail: the rates are more than 1"),
        ({"outputs": [{"when": {"q": "x"}}]}, "parameters.outputs.0.then: is missing"),
        ({"outputs": [{"then": {}}]}, "parameters.outputs.0.then: "),
        ({"outputs": [{"when": {"z": 1}, "then": {"a": "x"}}]}, "parameters.outputs.0.when: 'z' is not an input"),
        ({"outputs": [{"then": {"z": "x"}}]}, "parameters.outputs.0.then.z: is not a known field"),
        ({"outputs": [{"then": {"a": 1}}]}, "parameters.outputs.0.then.a: "),
        ({"usage": {"input_tokens": -1}}, "parameters.usage.input_tokens: "),
        ({"latency": 1}, "parameters.latency: is not a known field"),
        ({"latency_ms": -1}, "parameters.latency_ms: "),
        ({"latency_ms": "1"}, "parameters.latency_ms: "),
        ({"latency_ms": True}, "parameters.latency_ms: "),
        ({"fail": ["auth"]}, "parameters.fail: "),
        ({"fail": {"nonsense": "always"}}, "parameters.fail: 'nonsense' is not an error code"),
        ({"fail": {"auth": "sometimes"}}, "parameters.fail: 'auth': give"),
        ({"fail": {"auth": ["q"]}}, "parameters.fail: 'auth': give"),
        ({"fail": {"auth": [{"z": 1}]}}, "parameters.fail.auth: 'z' is not an input"),
    ],
    ids=repr,
)
def test_wrong_parameters_are_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError) as caught:
        run("q -> a", {"q": "x"}, parameters=parameters)
    assert caught.value.code is ErrorCode.PERMANENT
    assert caught.value.message.startswith(message)


def test_outputs_too_large_to_make_are_refused() -> None:
    inner: dict[str, Any] = {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000}
    outer = {"type": "array", "items": inner, "minItems": 1_000_000}
    signature = {"inputs": [{"name": "q", "type": "str"}], "outputs": [{"name": "a", "type": outer}]}
    with pytest.raises(AdapterError, match="more than the mock can make"):
        run(signature, {"q": "x"})


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": r"^\d{4}-[A-Z]{2}$"},
        {"pattern": r"^[^a-z]+@(foo|bar)\.x$"},
        {"pattern": "^(((a*)*)*)*b$"},
        {"pattern": "((((((((a+)+)+)+)+)+)+)+)+"},
        {"pattern": "^[\u0430-\u044f]+$"},
        {"pattern": "^[a-z]+$", "minLength": 50, "maxLength": 60},
        {"pattern": "^https:", "format": "uri", "maxLength": 100},
        {"pattern": r"^\s\S\D\W.$"},
    ],
    ids=lambda schema: schema["pattern"],
)
def test_texts_fit_a_pattern(schema: dict[str, Any]) -> None:
    signature = {
        "inputs": [{"name": "q", "type": "str"}],
        "outputs": [{"name": "a", "type": {"type": "string"} | schema}],
    }
    texts = [str(run(signature, {"q": str(number)}).outputs["a"]) for number in range(5)]
    assert len(set(texts)) > 1
    assert max(map(len, texts)) < 20_000


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"pattern": "^x", "format": "date"}, "no text was found that fits its pattern, format and lengths"),
        ({"pattern": r"\p{L}"}, "its pattern is not one that Python reads"),
    ],
)
def test_a_text_that_cannot_be_made_is_refused(schema: dict[str, Any], message: str) -> None:
    signature = {
        "inputs": [{"name": "q", "type": "str"}],
        "outputs": [{"name": "a", "type": {"type": "string"} | schema}],
    }
    with pytest.raises(AdapterError, match=f"outputs.a: the mock cannot make a value: {message}"):
        run(signature, {"q": "x"})


def test_the_documented_script_is_one() -> None:
    signature = "ticket -> urgency: Literal['low', 'high'], confidence: float"
    script = json.loads(block("docs/testing.md", "json"))
    quick = script | {"latency_ms": 0, "fail": {}}
    run(signature, {"ticket": "x"}, seed=1, parameters=quick)
    outcome = run(signature, {"ticket": "It is on fire."}, parameters=quick)
    assert outcome.outputs == {"urgency": "high", "confidence": 1.0}
    assert (outcome.usage.input_tokens, outcome.usage.cost) == (900, 0.0004)
    with pytest.raises(AdapterError) as caught:
        run(signature, {"ticket": "broken"}, parameters=script | {"latency_ms": 0})
    assert caught.value.code is ErrorCode.INVALID_OUTPUT


def test_the_documented_program_runs() -> None:
    program = block("docs/testing.md", "python")
    *lines, last = program.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert eval(last, names) == {"answer": "42"}
