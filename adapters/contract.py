"""The test suite for adapters: it checks the obligations of `adapters/port.py`, one by one.

The author of an adapter runs it with pytest and jsonschema (`dspex-server[contract]`):

    import pytest
    pytest.register_assert_rewrite("adapters.contract")  # before the import: failures then show values
    from adapters.contract import AdapterContract, Subject

    class TestMine(AdapterContract):
        @pytest.fixture
        def subject(self):
            return Subject("mine", MyAdapter, failing, codes=frozenset({ErrorCode.TRANSIENT}))

`Subject` says how to make the adapter, and how to make its runs fail.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
from jsonschema import Draft202012Validator

from adapters.fallback import LoadedProgram
from adapters.port import (
    MAX_QUOTE,
    MAX_TRACE_STEPS,
    MAX_TRACE_TEXT,
    Adapter,
    AdapterError,
    AdapterStats,
    Outcome,
    ProgramInfo,
    ProgramNotLoaded,
    ProgramSpec,
    RunOptions,
    ShowsPrompts,
    TraceStep,
)
from dspex import LM, Configuration, ErrorCode, Signature, Usage

OPTIONS = RunOptions("run")
THREADS = 16
PATIENCE = 60
"""Seconds that a test waits for a condition."""


@dataclass(frozen=True)
class Subject:
    """An adapter under test.

    Attributes:
        make: makes a new adapter; its argument is how many programs the adapter may keep.
        lm: the LM of its programs.
        failing: a context manager that yields a spec. Inside the context, runs of the spec fail with the given code.
        codes: the codes that `failing` can produce.
        slow: a context manager that yields a spec. Inside the context, runs of the spec do not end by themselves.
        stops: whether such a run ends when it is cancelled; False if timeouts are advisory.
        secret: a text that no error may contain.
        passes_on: the environment variables that it passes on to its own processes.
    """

    adapter_type: str
    make: Callable[[int], Adapter]
    failing: Callable[[ProgramSpec, ErrorCode], AbstractContextManager[ProgramSpec]]
    codes: frozenset[ErrorCode]
    slow: Callable[[ProgramSpec], AbstractContextManager[ProgramSpec]]
    lm: LM | None = None
    stops: bool = True
    secret: str = "no secret"  # noqa: S105  it is the one that is looked for
    passes_on: frozenset[str] = frozenset()

    def spec(self, signature: str | Mapping[str, Any] = "question -> answer", **configuration: Any) -> ProgramSpec:
        """A program of a signature, on this adapter."""
        configuration.setdefault("lm", self.lm)
        return ProgramSpec(self.adapter_type, Signature.parse(signature), Configuration(**configuration))


def run(adapter: Adapter, spec: ProgramSpec, inputs: Mapping[str, Any], options: RunOptions = OPTIONS) -> Outcome:
    """Create the program and run it, like a worker."""
    backend_id = adapter.create_program(spec)
    return adapter.execute_program(backend_id, spec.signature.validate_inputs(inputs), options)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE} s in vain")
        time.sleep(0.005)


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    match value:
        case str():
            yield value
        case Mapping():
            for pair in value.items():
                yield from texts(list(pair))
        case list():
            for item in value:
                yield from texts(item)


def outputs_of(*fields: tuple[str, Any]) -> dict[str, Any]:
    """A signature with one input and these outputs."""
    outputs = [{"name": name, "type": schema} for name, schema in fields]
    return {"inputs": [{"name": "question", "type": "str"}], "outputs": outputs}


ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "minLength": 3},
        "number": {"type": "integer", "minimum": 1},
        "note": {"type": "string"},
        "model_config": {"type": "boolean"},
    },
    "required": ["street", "number", "model_config"],
    "additionalProperties": False,
}


def object_of(**properties: Any) -> dict[str, Any]:
    """An object of these properties, all of them required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


TAGGED = {
    "oneOf": [
        object_of(kind={"const": "text"}, text={"type": "string"}),
        object_of(kind={"const": "number"}, number={"type": "number"}),
    ],
    "discriminator": {"propertyName": "kind"},
}
SIGNATURES: dict[str, Any] = {
    "text": "question -> answer",
    "scalars": "question -> a: str, b: int, c: float, d: bool",
    "text enum": "question -> label: Literal['billing', 'bug', 'it; works', \"o'k\"]",
    "mixed enum": "question -> label: Literal['a', 1, True]",
    "lists": "question -> tags: list[str], counts: list[int], table: list[list[float]]",
    "maps": "question -> scores: dict[str, float], groups: dict[str, list[str]]",
    "optional": "question -> a: Optional[str], b: Optional[int], c: Optional[list[str]]",
    "whole number bounds": outputs_of(
        ("a", {"type": "integer", "minimum": 10, "maximum": 20, "multipleOf": 5}),
        ("b", {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5}),
        ("c", {"anyOf": [{"type": "integer", "minimum": 7}, {"type": "null"}]}),
    ),
    "number bounds": outputs_of(
        ("a", {"type": "number", "minimum": 0, "maximum": 1}),
        ("b", {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}),
    ),
    "lengths": outputs_of(
        ("a", {"type": "string", "minLength": 30}),
        ("b", {"type": "string", "maxLength": 3}),
        ("c", {"type": "array", "items": {"type": "string"}, "minItems": 4}),
        ("d", {"type": "array", "items": {"type": "integer"}, "maxItems": 1}),
    ),
    "nested": outputs_of(("address", ADDRESS), ("addresses", {"type": "array", "items": ADDRESS, "minItems": 1})),
    "formats": (
        "question -> a: datetime.date, b: datetime.datetime, c: datetime.time, d: datetime.timedelta, e: uuid.UUID, "
        "f: pydantic.AnyUrl, g: pydantic.EmailStr, h: decimal.Decimal, i: list[datetime.date], j: Optional[uuid.UUID]"
    ),
    "pattern": outputs_of(("a", object_of(code={"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}))),
    "constant": outputs_of(("a", {"const": "yes"}), ("b", {"const": 1}), ("c", object_of(kind={"const": True}))),
    "any": "question -> a: Any, b: list, c: dict, d: list[Any], e: dict[str, Any], f: Optional[Any]",
    "unions": (
        "question -> a: int | str, b: Union[date, int, None], c: list[bool | dict[str, int]], d: Optional[int | date]"
    ),
    "told apart": outputs_of(("a", TAGGED), ("b", {"type": "array", "items": TAGGED})),
    "tuples and sets": (
        "question -> a: tuple[int, str], b: set[str], c: list[tuple[date, float]], d: set[date], e: set[dict]"
    ),
    "any names": outputs_of(("a", object_of(**{"due date": {"type": "string", "format": "date"}, "_id": {}, "1": {}}))),
    "names of pydantic": "question -> copy: str, json: int, model_name: str",
}


class AdapterContract:
    """The suite. Subclasses override the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> Subject:
        pytest.fail("override the fixture 'subject'")

    @pytest.fixture
    def adapter(self, subject: Subject) -> Adapter:
        return subject.make(8)

    # Building

    def test_the_id_is_that_of_the_spec(self, subject: Subject, adapter: Adapter) -> None:
        spec = subject.spec()
        assert adapter.create_program(spec) == spec.backend_id
        assert adapter.create_program(spec) == spec.backend_id
        assert subject.make(8).create_program(subject.spec()) == spec.backend_id

    def test_other_programs_have_other_ids(self, subject: Subject, adapter: Adapter) -> None:
        specs = [subject.spec(), subject.spec("question -> reply"), subject.spec(module="ChainOfThought")]
        assert len({adapter.create_program(spec) for spec in specs}) == len(specs)

    def test_a_program_is_built_from_its_spec_alone(self, subject: Subject, adapter: Adapter) -> None:
        spec = subject.spec("question -> answer, n: int")
        backend_id = adapter.create_program(spec)
        there = adapter.execute_program(backend_id, {"question": "why"}, OPTIONS)
        other = subject.make(8)
        with pytest.raises(ProgramNotLoaded):
            other.execute_program(backend_id, {"question": "why"}, OPTIONS)
        other.create_program(spec)
        assert other.execute_program(backend_id, {"question": "why"}, OPTIONS).outputs == there.outputs

    def test_a_parameter_it_does_not_know_is_refused_by_name(self, subject: Subject, adapter: Adapter) -> None:
        with pytest.raises(AdapterError, match=r"parameters\.nonsense: is not a known field") as caught:
            adapter.create_program(subject.spec(parameters={"nonsense": 1}))
        assert caught.value.code is ErrorCode.PERMANENT

    def test_nothing_is_read_or_connected_to_before_a_run(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject.make(8).create_program(subject.spec())  # imports are done now

        def forbidden(*_: Any, **__: Any) -> NoReturn:
            raise AssertionError("not before a run")

        read: set[str] = set()
        environ: Any = type(os.environ)
        get = environ.__getitem__

        def recorded(self: Any, name: str) -> str:
            read.add(name)
            value: str = get(self, name)
            return value

        monkeypatch.setattr(environ, "__getitem__", recorded)
        monkeypatch.setattr(socket.socket, "connect", forbidden)
        monkeypatch.setattr(socket, "getaddrinfo", forbidden)
        subject.make(8).create_program(subject.spec())
        assert {name for name in read if not name.startswith("PYDANTIC_")} <= subject.passes_on

    # Running

    def test_an_unknown_program_is_not_loaded(self, subject: Subject, adapter: Adapter) -> None:
        with pytest.raises(ProgramNotLoaded) as caught:
            adapter.execute_program(f"{subject.adapter_type}-nothing", {}, OPTIONS)
        assert caught.value.code == "program_not_loaded"

    @pytest.mark.parametrize("name", SIGNATURES)
    def test_outputs_fit_the_signature(self, subject: Subject, adapter: Adapter, name: str) -> None:
        spec = subject.spec(SIGNATURES[name])
        outputs = run(adapter, spec, {"question": "why"}).outputs
        assert spec.signature.validate_outputs(outputs) == outputs
        assert json.loads(json.dumps(outputs)) == outputs
        Draft202012Validator(spec.signature.output_schema()).validate(outputs)

    @pytest.mark.parametrize(
        "inputs",
        [
            {"text": "x"},
            {"text": "", "n": 0, "note": None, "tags": [], "scores": {}, "deep": {"number": 1}},
            {"text": "[[ ## answer ## ]]\né \N{GRINNING FACE}", "n": 10**20, "note": "null", "tags": ["a", "b\nc"]},
        ],
        ids=["least", "empty", "odd"],
    )
    def test_any_inputs_that_fit_are_taken(self, subject: Subject, adapter: Adapter, inputs: dict[str, Any]) -> None:
        deep = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": []}
        spec = subject.spec(
            {
                "inputs": [
                    {"name": "text", "type": "str"},
                    {"name": "n", "type": "int", "default": 3},
                    {"name": "note", "type": "Optional[str]"},
                    {"name": "tags", "type": "list[str]", "default": ["a"]},
                    {"name": "scores", "type": "dict[str, float]", "default": {"a": 1}},
                    {"name": "deep", "type": deep, "default": {}},
                ],
                "outputs": [{"name": "answer", "type": "str"}],
            }
        )
        assert set(run(adapter, spec, inputs).outputs) == {"answer"}

    def test_inputs_are_left_as_they_were(self, subject: Subject, adapter: Adapter) -> None:
        inputs = {"tags": ["a", "b"], "scores": {"a": 1.0}}
        before = copy.deepcopy(inputs)
        run(adapter, subject.spec("tags: list[str], scores: dict[str, float] -> answer"), inputs)
        assert inputs == before

    def test_a_seed_is_taken(self, subject: Subject, adapter: Adapter) -> None:
        options = RunOptions("run", seed=2**63 - 1)
        assert run(adapter, subject.spec(), {"question": "why"}, options).outputs["answer"]

    def test_usage_is_reported(self, subject: Subject, adapter: Adapter) -> None:
        usage = run(adapter, subject.spec(), {"question": "why"}).usage
        assert usage.calls == 1
        assert usage.input_tokens
        assert usage.output_tokens

    def test_one_program_serves_many_threads(self, subject: Subject, adapter: Adapter) -> None:
        spec = subject.spec("question, k: int -> answer, n: int, label: Literal['a', 'b']")
        backend_id = adapter.create_program(spec)

        def execute(number: int) -> Mapping[str, Any]:
            return adapter.execute_program(backend_id, {"question": f"q{number}", "k": number}, OPTIONS).outputs

        alone = [execute(number) for number in range(48)]
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(execute, range(48))) == alone

    def test_many_threads_create_and_run_many_programs(self, subject: Subject) -> None:
        adapter = subject.make(64)
        specs = [subject.spec(f"question -> answer{number}: int") for number in range(8)]

        def create_and_run(number: int) -> bool:
            outputs = run(adapter, specs[number % 8], {"question": "why"}).outputs
            return set(outputs) == {f"answer{number % 8}"}

        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(create_and_run, range(64)))

    def test_a_run_tells_how_long_it_took(self, subject: Subject, adapter: Adapter) -> None:
        assert run(adapter, subject.spec(), {"question": "why"}).duration_ms > 0

    def test_no_trace_is_made_unless_it_is_asked_for(self, subject: Subject, adapter: Adapter) -> None:
        assert run(adapter, subject.spec(), {"question": "why"}).trace is None

    def test_a_trace_is_bounded_and_holds_no_secret(self, subject: Subject, adapter: Adapter) -> None:
        inputs = {"question": "why " * MAX_TRACE_TEXT}
        trace = run(adapter, subject.spec(), inputs, RunOptions("run", trace=True)).trace
        assert trace
        assert len(trace) <= MAX_TRACE_STEPS
        for step in trace:
            assert TraceStep.model_validate_json(step.model_dump_json()) == step
            for text in texts(step.model_dump(mode="json")):
                assert len(text) <= MAX_TRACE_TEXT
                assert subject.secret not in text

    def test_a_prompt_is_shown_without_a_secret_where_it_is(self, subject: Subject, adapter: Adapter) -> None:
        spec = subject.spec()
        if not isinstance(adapter, ShowsPrompts):
            with pytest.raises(AdapterError, match="has no prompts to show"):
                LoadedProgram(spec, lambda _: adapter).first_prompt({"question": "why"})
            return
        prompt = adapter.first_prompt(adapter.create_program(spec), {"question": f"why {subject.secret}"})
        assert prompt.model
        assert prompt.messages
        shown = json.dumps(prompt.messages, allow_nan=False)
        assert "why" in shown
        assert subject.secret not in shown
        adapter.delete_program(spec.backend_id)
        with pytest.raises(ProgramNotLoaded):
            adapter.first_prompt(spec.backend_id, {"question": "why"})

    def test_every_lm_call_is_in_the_usage(self, subject: Subject, adapter: Adapter) -> None:
        usage = run(adapter, subject.spec(), {"question": "why"}).usage
        assert len(usage.lm_calls) == usage.calls
        assert sum(call.input_tokens or 0 for call in usage.lm_calls) == usage.input_tokens
        assert sum(call.output_tokens or 0 for call in usage.lm_calls) == usage.output_tokens
        assert all(call.model for call in usage.lm_calls)
        assert Usage.model_validate_json(usage.model_dump_json()) == usage

    def test_there_is_nothing_to_cancel_where_nothing_runs(self, subject: Subject, adapter: Adapter) -> None:
        assert not adapter.cancel("run")
        run(adapter, subject.spec(), {"question": "why"})
        assert not adapter.cancel("run")

    # Stopping

    def test_a_run_is_cancelled_from_another_thread_and_others_are_not(
        self, subject: Subject, adapter: Adapter
    ) -> None:
        with ThreadPoolExecutor(2) as pool, subject.slow(subject.spec()) as spec:
            backend_id = adapter.create_program(spec)
            first, second = (
                pool.submit(adapter.execute_program, backend_id, {"question": "why"}, RunOptions(run_id))
                for run_id in ("first", "second")
            )
            wait_until(lambda: adapter.stats().running == 2)
            assert not adapter.cancel("third")
            assert adapter.cancel("first")
            if subject.stops:
                assert _cancelled(first)
                assert not second.done()
            assert adapter.cancel("second")
            if subject.stops:
                assert _cancelled(second)
        wait_until(lambda: adapter.stats().running == 0)
        assert not adapter.cancel("first")
        assert run(adapter, subject.spec(), {"question": "why"}).outputs["answer"]

    def test_a_run_ends_at_its_timeout(self, subject: Subject, adapter: Adapter) -> None:
        timeout = 0.05 if subject.stops else 1e-9  # an advisory timeout must have passed before the first LM call
        with subject.slow(subject.spec()) as spec, pytest.raises(AdapterError) as caught:
            run(adapter, spec, {"question": "why"}, RunOptions("run", timeout=timeout))
        assert caught.value.code is ErrorCode.TIMEOUT
        assert run(adapter, subject.spec(), {"question": "why"}).outputs["answer"]

    def test_a_run_that_is_quick_ends_before_its_timeout(self, subject: Subject, adapter: Adapter) -> None:
        assert run(adapter, subject.spec(), {"question": "why"}, RunOptions("run", timeout=3600)).outputs["answer"]

    # Failing

    def test_failures_are_adapter_errors_of_the_closed_set(self, subject: Subject, adapter: Adapter) -> None:
        assert subject.codes
        for code in subject.codes:
            with subject.failing(subject.spec(), code) as spec, pytest.raises(AdapterError) as caught:
                run(adapter, spec, {"question": "why"})
            assert caught.value.code is code
            assert isinstance(caught.value.code, ErrorCode)
            assert len(caught.value.message) <= MAX_QUOTE + 100

    def test_a_failure_reports_usage_and_is_not_retried(self, subject: Subject, adapter: Adapter) -> None:
        failing = subject.failing(subject.spec(), ErrorCode.TRANSIENT)
        with failing as spec, pytest.raises(AdapterError) as caught:
            run(adapter, spec, {"question": "why"})
        assert caught.value.usage.calls == 1

    def test_no_failure_tells_a_secret(self, subject: Subject, adapter: Adapter) -> None:
        for code in subject.codes:
            with subject.failing(subject.spec(), code) as spec, pytest.raises(AdapterError) as caught:
                run(adapter, spec, {"question": "why"})
            told = f"{caught.value} {caught.value!r} {vars(caught.value)}"
            assert subject.secret not in told

    def test_the_adapter_runs_on_after_a_failure(self, subject: Subject, adapter: Adapter) -> None:
        spec = subject.spec()
        with subject.failing(spec, ErrorCode.TRANSIENT) as failing, pytest.raises(AdapterError):
            run(adapter, failing, {"question": "why"})
        assert run(adapter, spec, {"question": "why"}).outputs["answer"]

    # Keeping

    def test_programs_are_kept_up_to_a_bound(self, subject: Subject) -> None:
        adapter = subject.make(3)
        specs = [subject.spec(f"question -> answer{number}") for number in range(5)]
        ids = [adapter.create_program(spec) for spec in specs]
        for backend_id in ids[:2]:
            with pytest.raises(ProgramNotLoaded):
                adapter.execute_program(backend_id, {"question": "why"}, OPTIONS)
        for backend_id in ids[2:]:
            adapter.execute_program(backend_id, {"question": "why"}, OPTIONS)
        adapter.create_program(specs[0])
        adapter.execute_program(ids[0], {"question": "why"}, OPTIONS)

    def test_the_program_used_last_is_kept_longest(self, subject: Subject) -> None:
        adapter = subject.make(2)
        first, second = (adapter.create_program(subject.spec(f"question -> answer{number}")) for number in (1, 2))
        adapter.execute_program(first, {"question": "why"}, OPTIONS)
        third = adapter.create_program(subject.spec("question -> answer3"))
        for kept in (first, third):
            adapter.execute_program(kept, {"question": "why"}, OPTIONS)
        with pytest.raises(ProgramNotLoaded):
            adapter.execute_program(second, {"question": "why"}, OPTIONS)

    def test_closing_twice_is_safe_and_frees_the_programs(self, subject: Subject, adapter: Adapter) -> None:
        backend_id = adapter.create_program(subject.spec())
        adapter.execute_program(backend_id, {"question": "why"}, OPTIONS)
        adapter.close()
        adapter.close()
        with pytest.raises(ProgramNotLoaded):
            adapter.execute_program(backend_id, {"question": "why"}, OPTIONS)

    def test_programs_are_listed_and_deleted(self, subject: Subject, adapter: Adapter) -> None:
        assert adapter.list_programs() == []
        spec = subject.spec(module="ChainOfThought")
        run(adapter, spec, {"question": "why"})
        model = None if subject.lm is None else subject.lm.model
        assert adapter.info(spec.backend_id) == ProgramInfo(spec.backend_id, "ChainOfThought", model, 1)
        other = adapter.create_program(subject.spec())
        assert {info.backend_id: info.runs for info in adapter.list_programs()} == {spec.backend_id: 1, other: 0}
        assert adapter.delete_program(other)
        assert not adapter.delete_program(other)
        assert [info.backend_id for info in adapter.list_programs()] == [spec.backend_id]
        with pytest.raises(ProgramNotLoaded):
            adapter.info(other)
        with pytest.raises(ProgramNotLoaded):
            adapter.execute_program(other, {"question": "why"}, OPTIONS)

    def test_runs_are_counted_by_how_they_ended(self, subject: Subject, adapter: Adapter) -> None:
        assert adapter.health_check().ok
        assert adapter.stats() == AdapterStats(programs=0, running=0, runs=0, failures={})
        run(adapter, subject.spec(), {"question": "why"})
        with subject.failing(subject.spec(), ErrorCode.TRANSIENT) as failing, pytest.raises(AdapterError):
            run(adapter, failing, {"question": "why"})
        stats = adapter.stats()
        assert (stats.running, stats.runs, stats.failures) == (0, 2, {ErrorCode.TRANSIENT: 1})
        assert stats.programs == len(adapter.list_programs()) > 0


def _cancelled(future: Future[Outcome]) -> bool:
    error = future.exception(PATIENCE)
    return isinstance(error, AdapterError) and error.code is ErrorCode.CANCELLED
