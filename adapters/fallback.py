"""Programs with fallbacks: a run tries them one after the other, until one produces outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from adapters.port import (
    Adapter,
    AdapterError,
    Outcome,
    ProgramNotLoaded,
    ProgramSpec,
    Prompt,
    RunOptions,
    ShowsPrompts,
    TraceStep,
)
from adapters.runs import Run, Runs
from dspex import Configuration, ErrorCode, Fallback, Signature, Try, Usage

_RUNS_IN_ENVIRONMENTS: Final = "python_port"
_RUNS_NO_CODE: Final = "mock"


def check_environment(adapter_type: str, configuration: Configuration) -> None:
    """Check that the adapters of a program run it in the environment that it names, if it names one.

    Raises:
        AdapterError: `permanent`: one of them does not. The text begins with the field in the configuration.
    """
    if configuration.environment is None:
        return
    instead = f"name '{_RUNS_IN_ENVIRONMENTS}', or remove the environment"
    if adapter_type != _RUNS_IN_ENVIRONMENTS:
        text = f"environment: '{adapter_type}' runs programs on the worker's own Python: {instead}"
        raise AdapterError(ErrorCode.PERMANENT, text)
    for number, fallback in enumerate(configuration.fallbacks):
        if fallback.adapter_type not in (None, _RUNS_IN_ENVIRONMENTS, _RUNS_NO_CODE):
            text = f"'{fallback.adapter_type}' runs programs on the worker's own Python: {instead}"
            raise AdapterError(ErrorCode.PERMANENT, f"fallbacks.{number}.adapter_type: {text}")


@dataclass(frozen=True)
class Attempt:
    """One candidate of a run: an adapter, and a program without fallbacks.

    Attributes:
        on: the error codes of the previous try after which this one runs.
    """

    spec: ProgramSpec
    adapter: Adapter
    on: frozenset[ErrorCode] = frozenset()

    def run(self, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Run the program. Creates it again if the adapter has dropped it."""
        try:
            return self.adapter.execute_program(self.spec.backend_id, inputs, options)
        except ProgramNotLoaded:
            self.adapter.create_program(self.spec)
            return self.adapter.execute_program(self.spec.backend_id, inputs, options)

    def first_prompt(self, inputs: Mapping[str, Any]) -> Prompt:
        """See `LoadedProgram.first_prompt`."""
        adapter = self.adapter
        if not isinstance(adapter, ShowsPrompts):
            text = f"adapter_type: '{self.spec.adapter_type}' has no prompts to show"
            raise AdapterError(ErrorCode.PERMANENT, text)
        try:
            return adapter.first_prompt(self.spec.backend_id, inputs)
        except ProgramNotLoaded:
            self.adapter.create_program(self.spec)
            return adapter.first_prompt(self.spec.backend_id, inputs)

    def told(self, usage: Usage, error: ErrorCode | None) -> Try:
        """The entry for this try in the usage of the run."""
        lm = self.spec.configuration.lm
        return Try(
            adapter_type=self.spec.adapter_type,
            model=None if lm is None else lm.model,
            error=error,
            calls=usage.calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=usage.cost,
        )


class LoadedProgram:
    """A program that can run in this process, with its fallbacks; each is built by its adapter.

    After an error, the next fallback that lists its code runs, with the rest of the run's timeout. The usage of every
    try is billed. If none succeeds, the run fails with the last error.

    Args:
        adapter: returns an adapter by its name.

    Raises:
        AdapterError: the program or a fallback cannot be built. For a fallback, the text begins with its field.
    """

    def __init__(self, spec: ProgramSpec, adapter: Callable[[str], Adapter]) -> None:
        check_environment(spec.adapter_type, spec.configuration)
        self.spec = spec
        self._runs = Runs()
        fallbacks = spec.configuration.fallbacks
        self._attempts = [_built(_without_fallbacks(spec), adapter)]
        for number, fallback in enumerate(fallbacks):
            try:
                self._attempts.append(_built(_in_place(spec, fallback), adapter, frozenset(fallback.on)))
            except AdapterError as error:
                raise error.under(f"fallbacks.{number}.") from None

    @property
    def signature(self) -> Signature:
        """The program's signature."""
        return self.spec.signature

    def execute(self, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Run the program once, on inputs that its signature has validated.

        Raises:
            AdapterError: the run failed; the error of the last try.
        """
        if len(self._attempts) == 1:
            return self._attempts[0].run(inputs, options)
        with self._runs.begin(options.run_id) as run:
            return self._in_turn(run, inputs, options)

    def first_prompt(self, inputs: Mapping[str, Any]) -> Prompt:
        """What its first LM call would send, for inputs that its signature has validated. Nothing is sent.

        Raises:
            AdapterError: its adapter shows no prompts, or there is no LM call for these inputs.
        """
        return self._attempts[0].first_prompt(inputs)

    def cancel(self, run_id: str) -> bool:
        """Cancel the runs with this id, in any of the tries. Returns whether there was one."""
        found = [self._runs.cancel(run_id)]
        adapters = {id(attempt.adapter): attempt.adapter for attempt in self._attempts}
        found += [adapter.cancel(run_id) for adapter in adapters.values()]
        return any(found)

    def _in_turn(self, run: Run, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        started = time.monotonic()
        ended: list[tuple[Try, Usage]] = []
        trace: tuple[TraceStep, ...] = ()
        error: AdapterError | None = None
        for attempt in self._attempts:
            if error is not None and error.code not in attempt.on:
                continue
            left = None if options.timeout is None else options.timeout - (time.monotonic() - started)
            if error is not None and (run.cancelled.is_set() or (left is not None and left <= 0)):
                break
            try:
                outcome = attempt.run(inputs, replace(options, timeout=left))
            except AdapterError as failed:
                error = failed
                ended.append((attempt.told(failed.usage, failed.code), failed.usage))
                trace += failed.trace or ()
                continue
            ended.append((attempt.told(outcome.usage, None), outcome.usage))
            duration_ms = (time.monotonic() - started) * 1000
            steps = None if outcome.trace is None else trace + outcome.trace
            return replace(outcome, usage=_sum(ended), duration_ms=duration_ms, trace=steps)
        if error is None or (run.cancelled.is_set() and error.code is not ErrorCode.CANCELLED):
            error = AdapterError(ErrorCode.CANCELLED, "the run was cancelled")
        error.usage = _sum(ended)
        error.trace = trace if options.trace else None
        raise error


def _without_fallbacks(spec: ProgramSpec, **changes: Any) -> ProgramSpec:
    configuration = spec.configuration.model_copy(update={**changes, "fallbacks": ()})
    return replace(spec, configuration=configuration)


def _in_place(spec: ProgramSpec, fallback: Fallback) -> ProgramSpec:
    given = {"lm": fallback.lm, "parameters": fallback.parameters}
    changed = _without_fallbacks(spec, **{key: value for key, value in given.items() if value is not None})
    return replace(changed, adapter_type=fallback.adapter_type or spec.adapter_type)


def _built(spec: ProgramSpec, adapter: Callable[[str], Adapter], on: frozenset[ErrorCode] = frozenset()) -> Attempt:
    made = adapter(spec.adapter_type)
    made.create_program(spec)
    return Attempt(spec, made, on)


def _sum(ended: Sequence[tuple[Try, Usage]]) -> Usage:
    """The usage of all tries."""
    usage = sum((usage for _, usage in ended), Usage())
    return usage.model_copy(update={"tries": tuple(told for told, _ in ended)})
