"""The adapter of the fault tests: it tells the history of each call, and does what the inputs ask for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapters.lm import LMCatalog
from adapters.port import AdapterError, AdapterStats, Health, Outcome, ProgramInfo, ProgramSpec, RunOptions
from adapters.programs import Programs
from adapters.runs import Run, Runs
from dspex import ErrorCode, LMCall, Signature, Usage
from tests.faults import failpoints
from tests.faults.history import History

NAME: Final = "recording"
HISTORY: Final = "DSPEX_TEST_HISTORY"
"""The environment variable that names the directory of the history."""

SIGNATURE: Final = Signature.parse(
    "sleep: float = 0, spin: float = 0, gate: str = '', fail: str = '', times: int = 1000000, kill: bool = False, "
    "size: int = 1 -> answer: str, told: str"
)
"""What a run does, in this order: it sleeps, keeps the interpreter busy (seconds), waits at a gate, fails with a code
in the first calls, ends its process, answers with a text of a size."""


@dataclass(frozen=True)
class Order:
    """The inputs."""

    sleep: float
    spin: float
    gate: str
    fail: str
    times: int
    kill: bool
    size: int


class RecordingAdapter:
    """The adapter; its obligations are those of `adapters.port`. Timeouts end a sleep and a wait."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._programs: Programs[ProgramSpec] = Programs(100)
        self._runs = Runs()

    def create_program(self, spec: ProgramSpec) -> str:
        """Keep the program."""
        if self._programs.find(spec.backend_id) is None:
            self._programs.put(spec, spec)
        return spec.backend_id

    def execute_program(self, backend_id: str, inputs: Mapping[str, Any], options: RunOptions) -> Outcome:
        """Tell, do as asked, and tell again."""
        self._programs.get(backend_id)
        tenant, _, execution_id = options.run_id.partition("/")
        order, me = Order(**inputs), {"id": execution_id, "tenant": tenant, "pid": os.getpid()}
        failpoints.reached("call.before")
        turn = self._history.turn(f"{tenant}.{execution_id}")
        self._history.record("call", turn=turn, **me)
        usage = Usage(calls=1, lm_calls=(LMCall(model=NAME),))
        with self._runs.begin(options.run_id) as run:
            _wait(run, order, self._history.gate(order.gate), options.timeout)
            _spin(order.spin)
            if order.fail and turn <= order.times:
                self._history.record("failed", turn=turn, **me)
                raise AdapterError(ErrorCode(order.fail), "as asked for", usage=usage)
            if order.kill:
                self._history.record("killing", **me)
                os._exit(1)
        self._history.record("returned", turn=turn, **me)
        failpoints.reached("call.after")
        # Another call of the same execution answers otherwise: an event of it can be told from this one's.
        return Outcome({"answer": "x" * order.size, "told": f"by {os.getpid()} in call {turn}"}, usage)

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
        return Health(True, "it needs nothing")

    def stats(self) -> AdapterStats:
        """What happened so far."""
        return self._runs.stats(len(self._programs))

    def close(self) -> None:
        """Drop all programs."""
        self._programs.clear()


def create_adapter(catalog: LMCatalog) -> RecordingAdapter:
    """Called by the registry."""
    return RecordingAdapter(History(Path(os.environ[HISTORY])))


def _wait(run: Run, order: Order, gate: Path, timeout: float | None) -> None:
    """Sleep, and wait at the gate."""
    limit = time.monotonic() + (1e9 if timeout is None else timeout)
    until = time.monotonic() + order.sleep
    while (now := time.monotonic()) < until or (order.gate and not gate.exists()):
        if now >= limit:
            raise AdapterError(ErrorCode.TIMEOUT, "the run took too long")
        pause = min(limit, until) - now if now < until else 0.02
        if run.cancelled.wait(min(pause, limit - now)):
            raise AdapterError(ErrorCode.CANCELLED, "the run was cancelled")


def _spin(seconds: float) -> None:
    """Hold the interpreter: other threads get it only when it is taken from this one."""
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for _ in range(10_000):
            number += 1
