"""The python_port adapter: gives each run to a child process, and kills the child at the timeout or on cancel."""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from adapters.lm import LMCatalog, ResolvedLMs, keys_of
from adapters.port import (
    MAX_QUOTE,
    MAX_TRACE_STEPS,
    AdapterError,
    AdapterStats,
    Health,
    ModuleCode,
    Outcome,
    ProgramInfo,
    ProgramSpec,
    Prompt,
    RunOptions,
    TraceStep,
    plain,
)
from adapters.programs import Programs
from adapters.python_port.children import Child, ChildEnded, DeadlinePassed
from adapters.python_port.frames import (
    Create,
    Created,
    Ended,
    Failed,
    FrameError,
    NotLoaded,
    Run,
    Shown,
    ShowPrompt,
    ToAdapter,
    encode,
)
from adapters.python_port.limits import Limits
from adapters.python_port.pool import Pool
from adapters.python_port.server import Server
from adapters.python_port.servers import Servers
from adapters.runs import Run as OwnRun
from adapters.runs import Runs
from adapters.trace import MAX_NAME, bounded_message, bounded_step
from dspex import ErrorCode

CAPACITY: Final = 512
"""How many programs are kept, here only as specs."""

GRACE_SECONDS: Final = 0.5
"""Seconds to wait for the end of a child that has closed its socket, as its exit status says why.
"""


@dataclass(frozen=True)
class _Program:
    spec: ProgramSpec
    resolved: ResolvedLMs

    @property
    def environment(self) -> str | None:
        """Where it runs; None: in the worker's own Python."""
        return self.spec.configuration.environment


class PythonPortAdapter:
    """Runs the native adapter in child processes, which run one program at a time.

    If a run exceeds `RunOptions.timeout` or is cancelled, its process is killed by SIGKILL. The wait for a free child
    counts towards the timeout, but not towards the duration. If a child dies or takes too much memory, only its own run
    fails, with `crashed`; the next run gets another child. Text that a run prints is in its trace.

    A child gets the keys of the programs that it runs, by frames, and an environment by allow-list. Apart from that, a
    child process is no sandbox: see docs/isolation.md. Needs Linux 5.4 (pidfd).

    Args:
        capacity: how many programs are kept.
        server: the server of the children, if adapters share one. By default the adapter has its own, and closes it.
        environments: the Pythons, by name, that programs may name besides the worker's own. See
            `adapters.python_port.environments`.
    """

    def __init__(
        self,
        catalog: LMCatalog,
        capacity: int = CAPACITY,
        limits: Limits | None = None,
        server: Server | None = None,
        environments: Mapping[str, str] | None = None,
    ) -> None:
        self._catalog = catalog
        self._limits = replace(limits or Limits(), lm_proxy=catalog.proxy)
        self._programs: Programs[_Program] = Programs(capacity)
        self._runs = Runs()
        self._servers = Servers(self._limits, environments or {}, server)
        self._pool = Pool(self._limits, self._servers)

    def create_program(self, spec: ProgramSpec) -> str:
        """See `Adapter.create_program`.

        One child builds the program at once, as a check; the others build it when they first run it. If the key of an
        LM has changed, the new one replaces it.
        """
        program = _Program(spec, self._catalog.resolve_all(spec.configuration, spec.tenant))
        kept = self._programs.find(spec.backend_id)
        if kept is not None and kept.resolved == program.resolved:
            return spec.backend_id
        environment = spec.configuration.environment
        self._servers.of(environment)  # or it is not here, which need not wait for its turn
        with self._pool.child(spec.backend_id, None, OwnRun(), environment, builds=True) as child:
            self._build(child, program)
        self._programs.put(spec, program)
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """See `Adapter.execute_program`. The timeout is hard."""
        deadline = None if options.timeout is None else time.monotonic() + options.timeout
        program = self._programs.get(backend_id)
        with self._runs.begin(options.run_id) as run:
            request = self._request(backend_id, inputs, options)
            with self._pool.child(backend_id, deadline, run, program.environment) as child:
                run.when_cancelled(child.kill)
                try:
                    return self._run(child, program, request, options, deadline, run)
                finally:
                    # Before the child is returned to the pool: a cancel must not kill the next run in it.
                    run.when_cancelled(None)

    def first_prompt(self, backend_id: str, inputs: Mapping[str, Any]) -> Prompt:
        """See `ShowsPrompts.first_prompt`. It has as long as a build."""
        seconds = self._limits.build_seconds
        program, run, deadline = self._programs.get(backend_id), OwnRun(), time.monotonic() + seconds
        request = self._encoded(ShowPrompt(backend_id=backend_id, inputs=dict(inputs)))
        with self._pool.child(backend_id, deadline, run, program.environment) as child:
            answer = self._answer(child, program, request, deadline, seconds, run)
            if not isinstance(answer, Shown):
                raise _broken(child, f"answered with '{answer.type}'")
        keys = keys_of(program.resolved)
        return Prompt(plain(answer.model, MAX_NAME), tuple(bounded_message(each, keys) for each in answer.messages))

    def cancel(self, run_id: str) -> bool:
        """See `Adapter.cancel`. The run's process is killed."""
        return self._runs.cancel(run_id)

    def list_programs(self) -> list[ProgramInfo]:
        """See `Adapter.list_programs`."""
        return self._programs.infos()

    def info(self, backend_id: str) -> ProgramInfo:
        """See `Adapter.info`."""
        return self._programs.info(backend_id)

    def delete_program(self, backend_id: str) -> bool:
        """See `Adapter.delete_program`. Children that have built it keep it until others displace it."""
        return self._programs.drop(backend_id) is not None

    def health_check(self) -> Health:
        """See `Adapter.health_check`. Unhealthy from a failed start of a child until the next successful one."""
        if self._pool.failure is not None:
            return Health(False, self._pool.failure)
        busy, idle, waiting = self._pool.counts()
        return Health(True, f"{busy} children are busy and {idle} idle; {waiting} runs wait for one")

    def stats(self) -> AdapterStats:
        """See `Adapter.stats`."""
        return self._runs.stats(len(self._programs))

    def close(self) -> None:
        """See `Adapter.close`. Cancels the runs in progress."""
        self._programs.clear()
        self._runs.cancel_all()
        self._pool.close()
        self._servers.close()

    def find_module(self, environment: str, name: str, allowed: Collection[str]) -> ModuleCode | None:
        """The code that a program's `module` names in an environment. See `adapters.own_modules.OwnModules`."""
        return self._servers.of(environment).find_module(name, allowed)

    def _request(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> bytes:
        frame = Run(
            backend_id=backend_id,
            inputs=dict(inputs),
            run_id=options.run_id,
            seed=options.seed,
            trace=options.trace,
            lm=options.lm,
        )
        return self._encoded(frame)

    def _encoded(self, frame: Run | ShowPrompt) -> bytes:
        try:
            return encode(frame, self._limits.max_frame_bytes)
        except FrameError as error:
            raise AdapterError(ErrorCode.INVALID_INPUT, f"the inputs cannot be sent to a child: {error}") from None

    def _run(
        self, child: Child, program: _Program, request: bytes, options: RunOptions, deadline: float | None, run: OwnRun
    ) -> Outcome:
        child.runs += 1
        try:
            answer = self._answer(child, program, request, deadline, options.timeout, run)
        except AdapterError as error:
            if options.trace:
                error.trace = _with_output(error.trace, child, program)
            raise
        if not isinstance(answer, Ended):
            raise _broken(child, f"answered with '{answer.type}'")
        child.grown_bytes = answer.grown_bytes
        trace = _with_output(answer.trace, child, program) if options.trace else None
        told = answer.extra_outputs, answer.exhausted_for
        return Outcome(answer.outputs, answer.usage, answer.duration_ms, trace, *told)

    def _answer(
        self,
        child: Child,
        program: _Program,
        request: bytes,
        deadline: float | None,
        timeout: float | None,
        run: OwnRun,
    ) -> ToAdapter:
        """The answer of a child, which builds the program first if it does not have it."""
        answer: ToAdapter = NotLoaded()
        if child.programs.get(program.spec.backend_id) == program.resolved:
            answer = self._ask(child, request, program, deadline, timeout, run)
        if isinstance(answer, NotLoaded):
            self._build(child, program, deadline, timeout, run)
            answer = self._ask(child, request, program, deadline, timeout, run)
        return answer

    def _build(
        self,
        child: Child,
        program: _Program,
        deadline: float | None = None,
        timeout: float | None = None,
        run: OwnRun | None = None,
    ) -> None:
        if deadline is None:
            timeout = self._limits.build_seconds
            deadline = time.monotonic() + timeout
        request = encode(Create.of(program.spec, program.resolved), self._limits.max_frame_bytes)
        answer = self._ask(child, request, program, deadline, timeout, run)
        if answer != Created(backend_id=program.spec.backend_id):
            raise _broken(child, "built another program")
        child.programs[program.spec.backend_id] = program.resolved

    def _ask(
        self,
        child: Child,
        request: bytes,
        program: _Program,
        deadline: float | None,
        timeout: float | None,
        run: OwnRun | None,
    ) -> ToAdapter:
        """Send a request to a child and return its answer. Every error has the usage of the run."""
        try:
            answer = child.ask(request, deadline)
        except DeadlinePassed:
            child.end()
            text = f"the run took longer than its {timeout:g} s, and was ended"
            raise AdapterError(ErrorCode.TIMEOUT, text, usage=child.usage) from None
        except ChildEnded:
            child.end(GRACE_SECONDS)
            if run is not None and run.cancelled.is_set():
                raise _cancelled(child) from None
            raise self._crashed(child, program) from None
        except FrameError as error:
            child.end()
            raise _broken(child, f"sent an invalid frame: {error}") from None
        if isinstance(answer, Failed):
            child.grown_bytes = answer.grown_bytes
            if answer.code is ErrorCode.CRASHED:
                child.end()
            raise answer.error
        if run is not None and run.cancelled.is_set():
            raise _cancelled(child)
        return answer

    def _crashed(self, child: Child, program: _Program) -> AdapterError:
        """The error for a child that exited, or was killed by someone else."""
        text = f"the child process {_ending(self._servers.of(child.environment).status(child.pid))}"
        lines = child.stderr.text(keys_of(program.resolved)).strip().splitlines()
        if lines:
            text += f"; the last it wrote to stderr: {lines[-1]}"
        return AdapterError(ErrorCode.CRASHED, text[:MAX_QUOTE], usage=child.usage)


def _broken(child: Child, what: str) -> AdapterError:
    """The error for a child that breaks the protocol, possibly under the control of its program."""
    child.kill()
    return AdapterError(ErrorCode.CRASHED, f"the child process {what}", usage=child.usage)


def _cancelled(child: Child) -> AdapterError:
    return AdapterError(ErrorCode.CANCELLED, "the run was cancelled, and its process ended", usage=child.usage)


def _with_output(steps: tuple[TraceStep, ...] | None, child: Child, program: _Program) -> tuple[TraceStep, ...]:
    """The steps of a run, as its child told them, followed by the text that it printed."""
    for stream in (child.stdout, child.stderr):
        stream.take()
    keys = keys_of(program.resolved)
    printed = [stream.step(keys) for stream in (child.stdout, child.stderr)]
    found = [step for step in printed if step is not None]
    # The child may be under the control of its program.
    told = (bounded_step(step, keys) for step in (steps or ())[: MAX_TRACE_STEPS - len(found)])
    return (*told, *found)


def _ending(status: int | None) -> str:
    if status is None:
        return "is gone"
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
