"""An adapter that answers with the plainest values that fit the signature. It shows what an adapter has to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters.lm import LMCatalog
from adapters.mock.draws import Draws
from adapters.mock.values import maker
from adapters.parameters import Parameters, read_parameters
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
from adapters.runs import Runs
from adapters.trace import bounded
from dspex import ErrorCode, LMCall, Signature, Usage


class EchoParameters(Parameters):
    """What a program may ask for: to fail so, or to hang until it is cancelled."""

    fail: Literal["transient", "refused"] | None = None
    hang: bool = False


@dataclass(frozen=True)
class Program:
    """What the adapter keeps of a program."""

    signature: Signature
    parameters: EchoParameters


class EchoAdapter:
    """The adapter; its obligations are those of `adapters.port`."""

    def __init__(self, capacity: int = 100) -> None:
        self._programs: Programs[Program] = Programs(capacity)
        self._runs = Runs()

    def create_program(self, spec: ProgramSpec) -> str:
        """Keep the program."""
        if self._programs.find(spec.backend_id) is None:
            parameters = read_parameters(EchoParameters, spec.configuration.parameters)
            self._programs.put(spec, Program(spec.signature, parameters))
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Answer at once, or fail, or hang, as the program's parameters say."""
        started = time.perf_counter()
        program = self._programs.get(backend_id)
        call = LMCall(model="echo", input_tokens=len(str(inputs)), output_tokens=1, cost=0.0)
        usage = Usage(calls=1, input_tokens=call.input_tokens, output_tokens=1, cost=0.0, lm_calls=(call,))
        with self._runs.begin(options.run_id) as run:
            if program.parameters.hang:
                if run.cancelled.wait(options.timeout):
                    raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled", usage=usage)
                raise AdapterError(ErrorCode.TIMEOUT, "the run took too long", usage=usage)
            if program.parameters.fail:
                raise AdapterError(ErrorCode(program.parameters.fail), "as asked for", usage=usage)
            draws = Draws(program.signature.digest, inputs)
            outputs = {field.name: maker(field.type, field.name)(draws) for field in program.signature.outputs}
        duration_ms = (time.perf_counter() - started) * 1000
        step = TraceStep(kind="predictor", name="echo", details={"inputs": bounded(inputs)}, duration_ms=duration_ms)
        return Outcome(outputs, usage, duration_ms, (step,) if options.trace else None)

    def cancel(self, run_id: str) -> bool:
        """Cancel the runs of this id."""
        return self._runs.cancel(run_id)

    def list_programs(self) -> list[ProgramInfo]:
        """All that are kept."""
        return self._programs.infos()

    def info(self, backend_id: str) -> ProgramInfo:
        """One that is kept."""
        return self._programs.info(backend_id)

    def delete_program(self, backend_id: str) -> bool:
        """Drop one."""
        return self._programs.drop(backend_id) is not None

    def health_check(self) -> Health:
        """Always well."""
        return Health(True, "echo needs nothing")

    def stats(self) -> AdapterStats:
        """What happened so far."""
        return self._runs.stats(len(self._programs))

    def close(self) -> None:
        """Drop all programs."""
        self._programs.clear()


def create_adapter(catalog: LMCatalog) -> EchoAdapter:
    """The entry point of the group `dspex.adapters`."""
    return EchoAdapter()
