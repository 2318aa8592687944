"""The trace of one run, for people: predictors, LM calls and tools, in the order in which they ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from adapters.native.media import as_blocks
from adapters.native.recorder import Recorder
from adapters.port import MAX_TRACE_STEPS, TraceStep
from adapters.trace import bounded


class Tracer(BaseCallback):  # type: ignore[misc]  # DSPy has no type information
    """A DSPy callback that records the steps of one run.

    Args:
        module: the program's module, for the names of its predictors.
        secrets: texts that no step may contain.
    """

    def __init__(self, module: Any, secrets: Collection[str]) -> None:
        super().__init__()
        self._names = {id(predictor): name for name, predictor in module.named_predictors()}
        self._secrets = secrets
        self._begun: dict[str, tuple[str, str, Any, float]] = {}
        self._steps: list[TraceStep] = []

    @property
    def steps(self) -> tuple[TraceStep, ...]:
        """The steps so far; at most the first `MAX_TRACE_STEPS`."""
        return tuple(self._steps)

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy is about to run a module. Only predictors are recorded."""
        if isinstance(instance, dspy.Predict):
            given = {key: value for key, value in inputs.get("kwargs", {}).items() if key != "config"}
            name = self._names.get(id(instance)) or type(instance).__name__
            self._begin(call_id, "predictor", name, {"inputs": as_blocks(given)})

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """DSPy has run a module."""
        self._end(call_id, {} if outputs is None else {"outputs": dict(outputs)}, exception)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy is about to call an LM."""
        self._begin(call_id, "lm_call", str(instance.model), {"messages": inputs.get("messages")})

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """DSPy has called an LM. The step has what the provider said of the call, too."""
        recorder = dspy.settings.usage_tracker
        call = recorder.last_call if isinstance(recorder, Recorder) else {}
        self._end(call_id, {} if outputs is None else {"answers": outputs, "call": call}, exception)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy is about to call a tool."""
        self._begin(call_id, "tool", str(instance.name), {"arguments": inputs.get("kwargs", inputs)})

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """DSPy has called a tool."""
        self._end(call_id, {"result": outputs}, exception)

    def _begin(self, call_id: str, kind: str, name: str, given: Any) -> None:
        self._begun[call_id] = kind, name, given, time.perf_counter()

    def _end(self, call_id: str, got: Mapping[str, Any], exception: BaseException | None) -> None:
        if call_id not in self._begun:
            return
        kind, name, given, started = self._begun.pop(call_id)
        if len(self._steps) >= MAX_TRACE_STEPS:
            return
        # Only the type of an error: its text may quote anything, and the error of the run has the rest.
        ended = got if exception is None else {"error": type(exception).__name__}
        details = {key: bounded(value, self._secrets) for key, value in {**given, **ended}.items()}
        duration_ms = (time.perf_counter() - started) * 1000
        self._steps.append(TraceStep(kind=kind, name=name, details=details, duration_ms=duration_ms))
