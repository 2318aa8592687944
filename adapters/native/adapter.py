"""The native adapter: builds DSPy modules, runs them, and reports their usage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final

import dspy
from dspy.utils.callback import BaseCallback

from adapters.extras import bounded_extras, check_extras
from adapters.lm import MAIN, LMCatalog, ResolvedLMs, keys_of
from adapters.native.error_codes import adapter_error
from adapters.native.first_prompt import FirstCall, NotSent
from adapters.native.lms import RecordingLM, make_lm
from adapters.native.media import sample_blocks
from adapters.native.modules.catalog import build_module
from adapters.native.modules.own import runner
from adapters.native.parameters import check_overrides
from adapters.native.prompts.catalog import prompt_adapter
from adapters.native.recorder import Recorder
from adapters.native.setup import prepare_dspy
from adapters.native.signatures import dspy_inputs
from adapters.native.trace import Tracer
from adapters.native.votes import check_n, validated_outputs
from adapters.native.wire import Wire
from adapters.port import AdapterError, AdapterStats, Health, Outcome, ProgramInfo, ProgramSpec, Prompt, RunOptions
from adapters.programs import Programs
from adapters.runs import Runs
from dspex import ErrorCode, Signature, Usage

CAPACITY: Final = 128
"""How many programs are kept."""


@dataclass(frozen=True)
class _Program:
    signature: Signature
    module: Any
    run: Callable[..., Any]
    lms: Mapping[str, RecordingLM]
    prompts: Any
    resolved: ResolvedLMs
    extras: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its LMs, which nobody may see."""
        return keys_of(self.resolved)


class NativeAdapter:
    """Runs DSPy in the calling thread.

    One module object serves all threads, as DSPy keeps the state of a run in context variables. A run returns those of
    the module's outputs that are in the signature.

    If DSPy cannot parse an answer, it asks once more, for JSON, so a run may take two LM calls instead of one.

    Timeouts are advisory, as a thread cannot be stopped. No LM call begins after the timeout, and a call waits for each
    part of its answer about as long as the run has left. After `cancel`, no LM call begins.

    Args:
        on_usage: called in the run's thread, with the run's id and its usage so far, when an LM call begins or is
            answered. So the usage of a process that may be killed is known.
    """

    def __init__(
        self, catalog: LMCatalog, capacity: int = CAPACITY, on_usage: Callable[[str, Usage], None] | None = None
    ) -> None:
        self._catalog = catalog
        self._programs: Programs[_Program] = Programs(capacity)
        self._runs = Runs()
        self._on_usage = on_usage
        self._wire = Wire(catalog.proxy)

    def create_program(self, spec: ProgramSpec) -> str:
        """See `Adapter.create_program`. If the key of an LM has changed, the new one replaces it."""
        resolved = self._catalog.resolve_all(spec.configuration, spec.tenant)
        kept = self._programs.find(spec.backend_id)
        if kept is not None and kept.resolved == resolved:
            return spec.backend_id
        check_n(spec.configuration)
        check_extras(spec.signature, spec.configuration)
        prepare_dspy()
        signature, configuration, code = spec.signature, spec.configuration, spec.code
        try:
            blocks = sample_blocks(signature)
            lms = {
                field: make_lm(field, resolved[field], lm, self._wire, blocks)
                for field, lm in configuration.named_lms.items()
            }
            given = {glob: lms[f"lms.{glob}"] for glob in configuration.lms}
            parts = configuration.modules.items()
            of_parts = {glob: lms[f"modules.{glob}.lm"] for glob, part in parts if part.lm is not None}
            module = build_module(signature, configuration, resolved[MAIN].model, code, given, of_parts)
            program = _Program(
                signature=signature,
                module=module,
                run=module if code is None else runner(module, code, signature, configuration.module),
                lms=lms,
                prompts=prompt_adapter(configuration.prompt_adapter, lms, module),
                resolved=resolved,
                extras=configuration.extra_outputs,
            )
        except AdapterError:
            raise
        except Exception as error:  # noqa: BLE001  whatever DSPy refuses, it will refuse again
            failure = adapter_error(error, Recorder(), keys_of(resolved))
            raise AdapterError(ErrorCode.PERMANENT, f"DSPy cannot build it: {failure.message}") from None
        self._programs.put(spec, program)
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """See `Adapter.execute_program`. Each LM call gets a seed: the first one the run's, then the next number."""
        started = time.perf_counter()
        program = self._programs.get(backend_id)
        on_usage = self._on_usage
        changed = None if on_usage is None else lambda usage: on_usage(options.run_id, usage)
        tracer = Tracer(program.module, program.keys) if options.trace else None
        with self._runs.begin(options.run_id) as run:
            recorder = Recorder(options, run, changed)
            try:
                if options.lm is not None:
                    check_overrides(program.lms.values(), options.lm)
                arguments = dspy_inputs(program.signature, inputs)
                with _run_context(program, recorder, tracer):
                    prediction = program.run(**arguments)
                outputs = validated_outputs(program.signature, prediction)
            except Exception as error:  # noqa: BLE001  the port: AdapterError and nothing else
                failure = adapter_error(error, recorder, program.keys)
                failure.trace = tracer.steps if tracer else None
                raise failure from None
        duration_ms = (time.perf_counter() - started) * 1000
        extras = bounded_extras(program.extras, prediction) if program.extras else {}
        steps = tracer.steps if tracer else None
        return Outcome(outputs, recorder.usage, duration_ms, steps, extras, recorder.exhausted_for)

    def first_prompt(self, backend_id: str, inputs: Mapping[str, Any]) -> Prompt:
        """See `ShowsPrompts.first_prompt`."""
        program, recorder, first = self._programs.get(backend_id), Recorder(), FirstCall()
        try:
            arguments = dspy_inputs(program.signature, inputs)
            with suppress(NotSent), _run_context(program, recorder, first):
                program.run(**arguments)
        except Exception as error:  # noqa: BLE001  the port: AdapterError and nothing else
            if first.call is None:
                raise adapter_error(error, recorder, program.keys) from None
        prompt = first.prompt(program.keys)
        if prompt is None:
            raise AdapterError(ErrorCode.PERMANENT, "the program calls no LM for these inputs")
        return prompt

    def cancel(self, run_id: str) -> bool:
        """See `Adapter.cancel`. The LM call in progress goes on; the run ends before the next one."""
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
        """See `Adapter.close`. Runs in progress lose their connections."""
        self._programs.clear()
        wire, self._wire = self._wire, Wire(self._catalog.proxy)
        wire.close()


def _run_context(program: _Program, recorder: Recorder, callback: BaseCallback | None) -> AbstractContextManager[None]:
    """DSPy's settings for one run. They are context variables, so it must be entered in the run's thread."""
    context: AbstractContextManager[None] = dspy.context(
        lm=program.lms[MAIN],
        adapter=program.prompts,
        usage_tracker=recorder,
        trace=None,  # otherwise DSPy keeps up to 10,000 predictions
        callbacks=[callback] if callback else [],
        disable_history=True,  # otherwise an LM that a module makes itself keeps up to 10,000 prompts
        warn_on_type_mismatch=False,  # the inputs are validated already, and the warning would quote them
        allow_tool_async_sync_conversion=True,
    )
    return context
