"""The native adapter itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import dspy

from adapters.lm import LMCatalog, ResolvedLM
from adapters.native.failures import adapter_error
from adapters.native.lms import Recorder, RecordingLM, make_lm
from adapters.native.modules import build_module
from adapters.native.setup import prepare_dspy
from adapters.native.signatures import dspy_inputs, json_outputs
from adapters.port import AdapterError, AdapterStats, Health, Outcome, ProgramInfo, ProgramSpec, RunOptions
from adapters.programs import Programs
from adapters.runs import Runs
from dspex import ErrorCode, Signature, Usage
from dspex.errors import InvalidOutput

CAPACITY: Final = 128
"""Programs that are kept, each with the connections of its LM."""


@dataclass(frozen=True)
class _Program:
    signature: Signature
    module: Any
    lm: RecordingLM
    resolved: ResolvedLM


class NativeAdapter:
    """Runs DSPy in the calling thread.

    One module serves all threads: DSPy keeps what belongs to a run in context variables. The modules are `Predict`,
    `ChainOfThought` and `MultiChainComparison`; of their outputs, those in the signature are returned.

    An answer that DSPy cannot read makes it ask once more, for JSON: a run may use two LM calls where one would do.

    Timeouts are advisory, and `cancel` stops nothing: a thread cannot be stopped.

    Args:
        on_usage: called with a run's id and its usage so far whenever an LM call begins or was answered, in the thread
            that runs: how a process that may be killed tells what it used.
    """

    def __init__(
        self, catalog: LMCatalog, capacity: int = CAPACITY, on_usage: Callable[[str, Usage], None] | None = None
    ) -> None:
        self._catalog = catalog
        self._programs: Programs[_Program] = Programs(capacity)
        self._runs = Runs()
        self._on_usage = on_usage

    def create_program(self, spec: ProgramSpec) -> str:
        """See `Adapter.create_program`. A key that has changed since takes the place of the old one."""
        lm = spec.configuration.lm
        if lm is None:
            raise AdapterError(ErrorCode.PERMANENT, "lm: native runs an LM: give its model")
        resolved = self._catalog.resolve(lm)
        kept = self._programs.find(spec.backend_id)
        if kept is not None and kept.resolved == resolved:
            return spec.backend_id
        prepare_dspy()
        try:
            program = _Program(
                signature=spec.signature,
                module=build_module(spec.signature, spec.configuration),
                lm=make_lm(resolved, lm.parameters),
                resolved=resolved,
            )
        except AdapterError:
            raise
        except Exception as error:  # noqa: BLE001  whatever DSPy refuses, it will refuse again
            failure = adapter_error(error, Recorder(), resolved.api_key)
            raise AdapterError(ErrorCode.PERMANENT, f"DSPy cannot build it: {failure.message}") from None
        self._programs.put(spec, program)
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """See `Adapter.execute_program`. The seed goes to LMs that take one."""
        started = time.perf_counter()
        program = self._programs.get(backend_id)
        on_usage = self._on_usage
        recorder = Recorder(None if on_usage is None else lambda usage: on_usage(options.run_id, usage))
        with self._runs.begin(options.run_id):
            try:
                arguments = dspy_inputs(program.signature, inputs)
                with _run_context(program.lm, recorder):
                    prediction = program.module(**arguments, config=_lm_options(program.lm, options))
                outputs = program.signature.validate_outputs(json_outputs(program.signature, prediction))
            except InvalidOutput as error:
                raise AdapterError(ErrorCode.INVALID_OUTPUT, error.message, usage=recorder.usage) from None
            except Exception as error:  # noqa: BLE001  the port: AdapterError and nothing else
                raise adapter_error(error, recorder, program.resolved.api_key) from None
        return Outcome(outputs, recorder.usage, (time.perf_counter() - started) * 1000)

    def cancel(self, run_id: str) -> bool:
        """See `Adapter.cancel`. The run goes on: its result is to be discarded."""
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
        return Health(True, f"DSPy {dspy.__version__}")

    def stats(self) -> AdapterStats:
        """See `Adapter.stats`."""
        return self._runs.stats(len(self._programs))

    def close(self) -> None:
        """See `Adapter.close`. Runs that are under way lose their connections."""
        for program in self._programs.clear():
            program.lm.close()


def _run_context(lm: RecordingLM, recorder: Recorder) -> AbstractContextManager[None]:
    """DSPy's settings for one run; a context variable, so it is entered in the thread that runs."""
    context: AbstractContextManager[None] = dspy.context(
        lm=lm,
        adapter=None,
        usage_tracker=recorder,
        trace=None,  # else every prediction is kept, up to 10,000
        callbacks=[],
        disable_history=False,  # RecordingLM.update_history is called in its place, with the cost
        warn_on_type_mismatch=False,  # validated already; the warning quotes inputs
    )
    return context


def _lm_options(lm: RecordingLM, options: RunOptions) -> dict[str, Any]:
    # LiteLLM refuses a seed where the provider knows none; DSPy's own client leaves it out.
    return {"seed": options.seed} if options.seed is not None and lm.is_native else {}
