"""Programs with fallbacks: which try comes after which error, and what a run reports of all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adapters.contract import wait_until
from adapters.fallback import LoadedProgram
from adapters.port import AdapterError, Outcome, ProgramSpec, RunOptions
from adapters.registry import AdapterRegistry
from dspex import Configuration, ErrorCode, Signature, Try, Usage

OPTIONS = RunOptions("run")


@pytest.fixture
def registry() -> Iterator[AdapterRegistry]:
    made = AdapterRegistry()
    yield made
    made.close()


def answering(text: str, **more: Any) -> dict[str, Any]:
    return {"outputs": [{"then": {"answer": text}}], **more}


def failing(code: str, **more: Any) -> dict[str, Any]:
    return {"fail": {code: "always"}, **more}


def fallback(*on: str, model: str = "lm/second", **parameters: Any) -> dict[str, Any]:
    return {"on": on, "lm": {"model": model}, "parameters": parameters}


def program(registry: AdapterRegistry, parameters: dict[str, Any], *fallbacks: dict[str, Any]) -> LoadedProgram:
    configuration = {"lm": {"model": "lm/first"}, "parameters": parameters, "fallbacks": fallbacks}
    spec = ProgramSpec("mock", Signature.parse("q -> answer"), Configuration.model_validate(configuration))
    return LoadedProgram(spec, registry.get)


def answer(program: LoadedProgram, options: RunOptions = OPTIONS) -> Outcome:
    return program.execute({"q": "x"}, options)


def failure(program: LoadedProgram, options: RunOptions = OPTIONS) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        answer(program, options)
    return caught.value


def test_a_program_without_fallbacks_runs_as_it_is(registry: AdapterRegistry) -> None:
    loaded = program(registry, answering("first"))
    outcome = answer(loaded)
    assert outcome.outputs == {"answer": "first"}
    assert outcome.usage.tries == ()
    registry.get("mock").delete_program(loaded.spec.backend_id)
    assert answer(loaded).outputs == {"answer": "first"}


def test_a_program_that_does_not_fail_is_tried_once(registry: AdapterRegistry) -> None:
    outcome = answer(program(registry, answering("first"), fallback("timeout", **answering("second"))))
    assert outcome.outputs == {"answer": "first"}
    assert [(told.model, told.error) for told in outcome.usage.tries] == [("lm/first", None)]


def test_after_an_error_the_next_one_that_lists_it_is_tried(registry: AdapterRegistry) -> None:
    loaded = program(
        registry,
        failing("rate_limited"),
        fallback("auth", model="lm/not-this", **answering("no")),
        fallback("transient", "rate_limited", model="lm/this", **failing("transient")),
        fallback("rate_limited", model="lm/nor-this", **answering("no")),
        fallback("transient", model="lm/last", **answering("yes")),
    )
    outcome = answer(loaded)
    assert outcome.outputs == {"answer": "yes"}
    assert [(told.model, told.error) for told in outcome.usage.tries] == [
        ("lm/first", ErrorCode.RATE_LIMITED),
        ("lm/this", ErrorCode.TRANSIENT),
        ("lm/last", None),
    ]


def test_the_last_error_is_that_of_the_run(registry: AdapterRegistry) -> None:
    loaded = program(registry, failing("timeout"), fallback("timeout", **failing("refused")))
    error = failure(loaded)
    assert error.code is ErrorCode.REFUSED
    assert [told.error for told in error.usage.tries] == [ErrorCode.TIMEOUT, ErrorCode.REFUSED]
    unlisted = program(registry, failing("auth"), fallback("timeout", **answering("no")))
    assert failure(unlisted).code is ErrorCode.AUTH


def test_every_try_is_billed(registry: AdapterRegistry) -> None:
    first = failing("timeout", usage={"input_tokens": 10, "output_tokens": 1, "cost": 0.5})
    second = answering("x", usage={"input_tokens": 20, "output_tokens": 2, "cost": 0.25})
    usage = answer(program(registry, first, fallback("timeout", **second))).usage
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cost) == (2, 30, 3, 0.75)
    assert [(call.model, call.cost) for call in usage.lm_calls] == [("lm/first", 0.5), ("lm/second", 0.25)]
    assert usage.tries == (
        Try(
            adapter_type="mock", model="lm/first", error=ErrorCode.TIMEOUT,
            calls=1, input_tokens=10, output_tokens=1, cost=0.5,
        ),
        Try(adapter_type="mock", model="lm/second", calls=1, input_tokens=20, output_tokens=2, cost=0.25),
    )  # fmt: skip
    assert Usage.model_validate_json(usage.model_dump_json()) == usage


def test_the_trace_has_the_steps_of_all_tries(registry: AdapterRegistry) -> None:
    loaded = program(registry, failing("timeout"), fallback("timeout", **answering("x")))
    trace = answer(loaded, RunOptions("run", trace=True)).trace
    assert trace is not None
    assert [step.name for step in trace] == ["lm/second"]  # the mock has no trace of a failure
    assert answer(loaded).trace is None


@pytest.mark.usefixtures("example_plugin")
def test_a_fallback_may_be_on_another_adapter(registry: AdapterRegistry) -> None:
    other = {"on": ["crashed"], "adapter_type": "echo", "parameters": {}}
    usage = answer(program(registry, failing("crashed"), other)).usage
    assert [(told.adapter_type, told.model) for told in usage.tries] == [("mock", "lm/first"), ("echo", "lm/first")]


def test_tries_share_the_timeout_of_the_run(registry: AdapterRegistry) -> None:
    slow: dict[str, Any] = {"latency_ms": 3_600_000}
    loaded = program(registry, slow, fallback("timeout", **answering("too late")))
    error = failure(loaded, RunOptions("run", timeout=0.05))
    assert error.code is ErrorCode.TIMEOUT
    assert len(error.usage.tries) == 1


def test_a_cancelled_run_is_not_tried_again(registry: AdapterRegistry) -> None:
    slow: dict[str, Any] = {"latency_ms": 3_600_000}
    loaded = program(registry, failing("timeout"), fallback("timeout", **slow))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(answer, loaded, RunOptions("mine"))
        wait_until(lambda: registry.get("mock").stats().running == 1 and registry.get("mock").stats().runs == 1)
        assert not loaded.cancel("other")
        assert loaded.cancel("mine")
        error = future.exception(60)
    assert isinstance(error, AdapterError)
    assert error.code is ErrorCode.CANCELLED
    assert [told.error for told in error.usage.tries] == [ErrorCode.TIMEOUT, ErrorCode.CANCELLED]
    assert not loaded.cancel("mine")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on": ["timeout"], "adapter_type": "nothing"}, "fallbacks.0.adapter_type: 'nothing' is not one of"),
        (fallback("timeout", latency=1), "fallbacks.0.parameters.latency: is not a known field"),
        ({"on": ["timeout"], "adapter_type": "native"}, "fallbacks.0.secret: 'LOST_OPENAI_API_KEY' is not known"),
    ],
)
def test_a_fallback_that_cannot_be_built_is_named(
    registry: AdapterRegistry, given: dict[str, Any], message: str
) -> None:
    if given.get("adapter_type") == "native":
        given = given | {"lm": {"model": "openai/x", "secret": "LOST_OPENAI_API_KEY"}}
    with pytest.raises(AdapterError) as caught:
        program(registry, {}, given)
    assert caught.value.message.startswith(message)
