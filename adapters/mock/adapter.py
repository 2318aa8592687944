"""The mock adapter: outputs that fit the signature, the same every time, or from a script."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from pydantic_core import to_json

from adapters.extras import check_extras
from adapters.mock.draws import Draws
from adapters.mock.parameters import MockParameters
from adapters.mock.values import Make, maker
from adapters.modules import check_module
from adapters.parameters import read_parameters
from adapters.port import (
    AdapterError,
    AdapterStats,
    Health,
    Outcome,
    ProgramInfo,
    ProgramSpec,
    RunOptions,
    TraceStep,
)
from adapters.programs import Programs
from adapters.runs import Run, Runs
from adapters.trace import bounded
from dspex import ErrorCode, LMCall, Signature, Usage
from dspex.errors import InvalidOutput
from dspex.model import problems
from dspex.signatures.annotations import object_model
from dspex.signatures.definitions import least_size

CAPACITY: Final = 1024
"""How many programs are kept."""

MAX_SIZE: Final = 10_000_000
"""The limit for the smallest outputs that fit a program's signature, in characters and members.
"""


@dataclass(frozen=True)
class _Program:
    signature: Signature
    parameters: MockParameters
    makers: tuple[tuple[str, Make], ...]
    model: str
    extras: tuple[str, ...]


class MockAdapter:
    """Makes outputs that fit the signature, from its digest, the inputs and the seed: the same in any process.

    Accepts any LM, any module of `adapters.modules`, and the parameters of `MockParameters`. The usage of a run is one
    call; by default it has one token for every four bytes of inputs and outputs, and a cost of 0.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._programs: Programs[_Program] = Programs(capacity)
        self._runs = Runs()

    def create_program(self, spec: ProgramSpec) -> str:
        """See `Adapter.create_program`."""
        if self._programs.find(spec.backend_id) is None:
            self._programs.put(spec, _build(spec))
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """See `Adapter.execute_program`."""
        started = time.perf_counter()
        program = self._programs.get(backend_id)
        script, key = program.parameters, (program.signature.digest, inputs, options.seed)
        with self._runs.begin(options.run_id) as run:
            _wait(run, _latency_ms(script, key) / 1000, options.timeout)
            code = script.failure(inputs, Draws("fail", *key).fraction() if script.fail else 0.0)
            if code is not None:
                text = f"the mock was told to fail with '{code}'"
                raise AdapterError(code, text, usage=_usage(program, inputs, None))
            draws = Draws(*key)
            made = {name: make(draws) for name, make in program.makers}
            if answer := script.answer(inputs):
                made |= deepcopy(dict(answer))
            try:
                outputs = program.signature.validate_outputs(made)
            except InvalidOutput as error:
                usage = _usage(program, inputs, made)
                raise AdapterError(ErrorCode.INVALID_OUTPUT, error.message, usage=usage) from None
        duration_ms = (time.perf_counter() - started) * 1000
        trace = _trace(program, inputs, outputs, duration_ms) if options.trace else None
        extras = {name: f"mock {name}" for name in program.extras}
        return Outcome(outputs, _usage(program, inputs, outputs), duration_ms, trace, extras)

    def cancel(self, run_id: str) -> bool:
        """See `Adapter.cancel`. Interrupts the simulated latency."""
        return self._runs.cancel(run_id)

    def list_programs(self) -> list[ProgramInfo]:
        """See `Adapter.list_programs`."""
        return self._programs.infos()

    def info(self, backend_id: str) -> ProgramInfo:
        """See `Adapter.info`."""
        return self._programs.info(backend_id)

    def delete_program(self, backend_id: str) -> bool:
        """See `Adapter.delete_program`."""
        return self._programs.drop(backend_id) is not None

    def health_check(self) -> Health:
        """See `Adapter.health_check`."""
        return Health(True, "the mock needs nothing")

    def stats(self) -> AdapterStats:
        """See `Adapter.stats`."""
        return self._runs.stats(len(self._programs))

    def close(self) -> None:
        """See `Adapter.close`."""
        self._programs.clear()


def _wait(run: Run, seconds: float, timeout: float | None) -> None:
    """Wait for the simulated latency. Raises if the run is cancelled or its timeout passes."""
    allowed = seconds if timeout is None else min(seconds, timeout)
    if run.cancelled.wait(allowed) if allowed > 0 else run.cancelled.is_set():
        raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled", usage=Usage(calls=1))
    if timeout is not None and seconds > timeout:
        raise AdapterError(ErrorCode.TIMEOUT, f"the run took longer than {timeout:g} s", usage=Usage(calls=1))


def _latency_ms(script: MockParameters, key: tuple[Any, ...]) -> float:
    given = script.latency_ms
    return given if isinstance(given, int | float) else given.draw(Draws("latency", *key))


def _build(spec: ProgramSpec) -> _Program:
    check_module(spec)
    parameters = read_parameters(MockParameters, spec.configuration.parameters)
    check_extras(spec.signature, spec.configuration)
    _check(spec.signature, parameters)
    if sum(least_size(field.type) for field in spec.signature.outputs) > MAX_SIZE:
        raise AdapterError(ErrorCode.PERMANENT, "outputs: their constraints ask for more than the mock can make")
    makers = tuple((field.name, maker(field.type, field.name)) for field in spec.signature.outputs)
    model = "mock" if spec.configuration.lm is None else spec.configuration.lm.model
    return _Program(spec.signature, parameters, makers, model, spec.configuration.extra_outputs)


def _check(signature: Signature, parameters: MockParameters) -> None:
    """Refuse parameters that name fields the signature does not have."""
    named = [(f"fail.{code}", name) for code, runs in parameters.fail.items() for name in _names(runs)]
    named += [(f"outputs.{number}.when", name) for number, rule in enumerate(parameters.outputs) for name in rule.when]
    inputs = {field.name for field in signature.inputs}
    for field, name in named:
        if name not in inputs:
            raise AdapterError(ErrorCode.PERMANENT, f"parameters.{field}: '{name}' is not an input")
    outputs = {field.name: field for field in signature.outputs}
    for number, rule in enumerate(parameters.outputs):
        given = [outputs[name] for name in rule.then if name in outputs]
        found = object_model("Then", given)
        try:
            found.model_validate(rule.then)
        except pydantic.ValidationError as error:
            wrong = "; ".join(map(str, problems(error, prefix=("parameters", "outputs", str(number), "then"))))
            raise AdapterError(ErrorCode.PERMANENT, wrong) from None


def _names(runs: object) -> list[str]:
    return [name for match in runs for name in match] if isinstance(runs, list) else []


def _trace(
    program: _Program, inputs: Mapping[str, Any], outputs: Mapping[str, Any], duration_ms: float
) -> tuple[TraceStep, ...]:
    details = {"inputs": bounded(inputs), "outputs": bounded(outputs)}
    return (TraceStep(kind="predictor", name=program.model, details=details, duration_ms=duration_ms),)


def _usage(program: _Program, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None) -> Usage:
    told = program.parameters.usage
    answered = 0 if outputs is None else _tokens(outputs)
    call = LMCall(
        model=program.model,
        input_tokens=_tokens(inputs) if told.input_tokens is None else told.input_tokens,
        output_tokens=answered if told.output_tokens is None else told.output_tokens,
        cost=told.cost or 0.0,
    )
    return Usage(
        calls=1,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cost=call.cost,
        lm_calls=(call,),
    )


def _tokens(values: Mapping[str, Any]) -> int:
    """An estimate of four bytes per token of English (https://help.openai.com/en/articles/4936856)."""
    return -(-len(to_json(values)) // 4)
