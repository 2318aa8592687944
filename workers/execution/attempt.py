"""One attempt of a claimed execution: validate, run, and decide the outcome. No transaction is open."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Mapping
from typing import Any

from adapters.port import AdapterError, NotHere, Outcome, RunOptions, TraceStep
from adapters.trace import fitting
from dspex import Configuration, ErrorCode, ErrorDetail, LMParameters, Usage
from dspex.contract.status import ProgramStatus
from dspex.errors import InvalidInput, InvalidValues, NotFound, Problem
from dspex.text import storable
from store.database.identity import Identity
from store.executions import Claimed, Finish, Request, Retry, Trace
from store.programs import Program
from workers.application.program_cache import ChangedProgram
from workers.application.wiring import Application
from workers.execution.blobs import kept_outputs, whole_inputs
from workers.execution.limited import limited_lms
from workers.execution.retry import Again, Failed, decide, not_here
from workers.outbound.error_details import detail_of, internal
from workers.persistence.group_commit import WriterClosed

End = Finish | Retry


class Attempt:
    """An attempt, and its possible ends."""

    def __init__(self, app: Application, request: Request, claimed: Claimed) -> None:
        self._app = app
        self._claimed_at = self._started = time.perf_counter()
        self._running = self._ran = False
        self._steps: tuple[TraceStep, ...] | None = None
        self._configuration: Configuration | None = None
        self._limited: Mapping[str, float | None] = {}
        self.request = request
        self.claimed = claimed

    @property
    def max_attempts(self) -> int:
        """The most attempts of the execution."""
        return self.claimed.policy.max_attempts or self._app.settings.max_attempts

    def run(self) -> End:
        """Run the attempt, and return its end.

        Raises:
            WriterClosed: the process is shutting down.
        """
        self._started = time.perf_counter()
        try:
            return self._outcome()
        finally:
            self._running = False

    def _begin(self) -> None:
        """Start the clock of the attempt. The time to read the program does not count."""
        self._started = time.perf_counter()
        self._running = True

    def _outcome(self) -> End:
        usage, retry_after = Usage(), None
        try:
            outcome = self._run()
            usage, self._steps = outcome.usage, outcome.trace
            self._limited = limited_lms(self._configuration, usage, exhausted_for=outcome.exhausted_for)
            outputs = kept_outputs(self._app, outcome, self.request.tenant)
            if self._is_cancelled:
                return self.cancelled(usage)
            return self.completed(usage, outputs, outcome.extra_outputs)
        except InvalidValues as invalid:
            error = detail_of(invalid)
        except ChangedProgram as changed:
            return self._claim_again(ErrorDetail(code=changed.code, message=changed.message))
        except NotHere as unknown:
            return self._give_back(unknown)
        except AdapterError as failed:
            usage, retry_after = failed.usage, failed.retry_after
            self._limited = limited_lms(self._configuration, usage, failed)
            self._steps = failed.trace or self._steps
            error = ErrorDetail(code=failed.code, message=storable(failed.message))
        except WriterClosed:
            raise
        except (Exception, SystemExit) as unexpected:  # noqa: BLE001 - it is told
            self._app.episodes.tell(
                f"Executions of program {self.request.program_id} fail unexpectedly ({type(unexpected).__name__})",
                f"execution {self.request.id}",
                level=logging.ERROR,
                error=unexpected,
            )
            error = internal(unexpected)
        if self._is_cancelled or error.code == ErrorCode.CANCELLED:
            return self.cancelled(usage)
        return self.failed(error, usage, retry_after=retry_after)

    @property
    def execution(self) -> Identity:
        """The execution of the attempt."""
        return Identity(self.claimed.id, self.request.tenant)

    @property
    def run_id(self) -> str:
        """The id of the run for its adapter. It includes the tenant, as several tenants may use the same id."""
        return f"{self.request.tenant}/{self.claimed.id}"

    @property
    def _is_traced(self) -> bool:
        """Whether to keep a trace. If the policy draws, each attempt of an execution draws the same."""
        asked, rate = self.request.options.trace, self.claimed.policy.trace_rate
        if asked is not None or not rate:
            return bool(asked)
        return zlib.crc32(self.claimed.id.bytes) < rate * 2**32

    @property
    def _trace(self) -> Trace | None:
        if self._steps is None or not self._is_traced:
            return None
        steps, shortened = fitting(self._steps)
        return Trace(self.claimed.attempt, [step.model_dump(mode="json") for step in steps], shortened)

    @property
    def _is_cancelled(self) -> bool:
        return self._app.in_flight.is_cancelled(self)

    def _run(self) -> Outcome:
        self._check()
        app, request, claimed = self._app, self.request, self.claimed
        if claimed.backend_id is None:
            raise _not_ready(app, request)
        loaded = app.programs.load(request.program_id, claimed.backend_id, request.tenant, self._begin)
        self._configuration = loaded.spec.configuration
        app.in_flight.hand_over(self, loaded)
        self._check()
        asked = request.options
        if asked.lm is not None:
            _check_parameters(asked.lm, loaded.spec.configuration)
        given = whole_inputs(app, request.inputs, loaded.signature, request.tenant)
        inputs = loaded.signature.validate_inputs(given)
        timeout = self._timeout
        if loaded.signature.attachments:
            inputs = app.attachments.resolve(loaded.signature, inputs, request.tenant, timeout)
            if self._is_cancelled:
                raise AdapterError(ErrorCode.CANCELLED, "it was cancelled before it was run")
            timeout = max(self._timeout - self.elapsed, SHORTEST_SECONDS)
        options = RunOptions(self.run_id, seed=asked.seed, timeout=timeout, trace=self._is_traced, lm=asked.lm)
        self._ran = True
        return loaded.execute(inputs, options)

    @property
    def _timeout(self) -> float:
        """The seconds that a run may take that begins now."""
        limit, left = self.claimed.policy.time_limit, self.seconds_left
        return limit if left is None else min(limit, left)

    def _check(self) -> None:
        """Raise if the execution must not run any more."""
        claimed = self.claimed
        if claimed.cancel_requested:
            raise AdapterError(ErrorCode.CANCELLED, "it was cancelled before it was run again")
        left = self.seconds_left
        if left is not None and left <= 0:
            raise AdapterError(ErrorCode.EXPIRED, "its deadline passed before it could be run")
        if claimed.attempt > self.max_attempts:
            raise AdapterError(
                ErrorCode.ATTEMPTS_EXHAUSTED,
                f"it was started {claimed.attempt - 1} times, and {claimed.lost} times its worker died or lost its "
                "lease; the program's policy.max_attempts, or DSPEX_MAX_ATTEMPTS, is the limit",
            )

    @property
    def elapsed(self) -> float:
        """Seconds since the attempt began."""
        return time.perf_counter() - self._started

    @property
    def age(self) -> float:
        """Seconds since it was claimed."""
        return time.perf_counter() - self._claimed_at

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline; None if it has none."""
        left = self.claimed.seconds_left
        return None if left is None else left - self.age

    @property
    def overdue(self) -> bool:
        """Whether it runs although its time is over, as its adapter cannot stop it."""
        left = self.seconds_left
        expired = left is not None and left < -GRACE_SECONDS
        return self._running and (expired or self.elapsed > self.claimed.policy.time_limit + GRACE_SECONDS)

    def completed(self, usage: Usage, outputs: Mapping[str, Any], extra_outputs: Mapping[str, Any]) -> End:
        """The end of an attempt that produced outputs."""
        return self._finish(usage, outputs=outputs, extra_outputs=extra_outputs)

    def cancelled(self, usage: Usage) -> End:
        """The end of an attempt that was cancelled."""
        return self._finish(usage, cancelled=True)

    def failed(self, error: ErrorDetail, usage: Usage | None = None, *, retry_after: float | None = None) -> End:
        """The end of a failed attempt: a retry or a failure, depending on the code of the error."""
        claimed, used = self.claimed, usage or Usage()
        left = self.seconds_left
        if error.code == ErrorCode.TIMEOUT and left is not None and left <= 0:
            error = ErrorDetail(code=ErrorCode.EXPIRED, message="its deadline passed while it ran")
        failed = Failed(
            code=ErrorCode(error.code),
            attempt=claimed.attempt,
            max_attempts=self.max_attempts,
            policy=claimed.policy,
            carried=claimed.carried,
            retry_after=retry_after,
            seconds_left=left,
        )
        again = decide(failed)
        return self._finish(used, error=error) if again is None else self._again(again, error, used)

    def _claim_again(self, error: ErrorDetail) -> End:
        """The end of an attempt that did not start, which spends no attempt."""
        return self._again(Again(0.0, self.claimed.attempt - 1, self.claimed.carried), error, Usage())

    def _give_back(self, unknown: NotHere) -> End:
        """Give the execution back, as another worker may be able to run it. Spends no attempt; the pauses grow."""
        program = self.request.program_id
        self._app.episodes.tell(
            f"Executions of program {program} are given back, as it cannot be built here", unknown.message
        )
        again = not_here(self.claimed.attempt, self.claimed.carried)
        if self._app.own is None:
            self._app.writes.turns.avoid(self.request.tenant, program, again.delay + OTHERS_SECONDS)
        return self._again(
            again,
            ErrorDetail(code=unknown.code, message=storable(unknown.message)),
            unknown.usage,
        )

    def _again(self, again: Again, error: ErrorDetail, used: Usage) -> End:
        claimed = self.claimed
        return Retry(
            id=claimed.id,
            lock_version=claimed.lock_version,
            delay=again.delay,
            attempt=again.attempt,
            error=error,
            usage=claimed.usage + used,
            carried=again.carried,
            tenant=self.request.tenant,
            trace=self._trace,
            spent=used if self._ran else None,
            limited=self._limited,
        )

    def _finish(self, usage: Usage, **how: Any) -> Finish:
        return Finish(
            id=self.claimed.id,
            program_id=self.request.program_id,
            lock_version=self.claimed.lock_version,
            # A claim after the last attempt does not count.
            attempt=min(self.claimed.attempt, self.max_attempts),
            duration_ms=self.elapsed * 1000 if self._ran else None,
            usage=self.claimed.usage + usage,
            tenant=self.request.tenant,
            answered=self.claimed.answered,
            trace=self._trace,
            spent=usage if self._ran else None,
            limited=self._limited,
            **how,
        )


OTHERS_SECONDS = 3.0
"""For so long, an execution that this process could not begin is left to others, once it is due."""

SHORTEST_SECONDS = 0.001
"""What a run has left, at least, whose inputs took all its time to come."""

GRACE_SECONDS = 2.0
"""Seconds for an adapter to stop a run whose time is over."""


_WAIT = "execute it after dspex.program.ready.v1"
_WAYS_OUT: Mapping[str, str] = {
    ProgramStatus.DRAFT: f"initialize it, and {_WAIT}",
    ProgramStatus.ERROR: f"mend it, initialize it, and {_WAIT}",
    ProgramStatus.ARCHIVED: "restore it, and replay this, if it shall run",
}


def _check_parameters(asked: LMParameters, configuration: Configuration) -> None:
    """Raise if the execution sets a parameter that no LM of its program lets it set."""
    may = configuration.overridable
    known = ", ".join(sorted(may)) or "none"
    refused = [name for name in asked.given if name not in may]
    if refused:
        text = f"the program does not let it be set: 'overridable' of its LM has {known}"
        raise InvalidInput([Problem(f"options.lm.{name}", text) for name in refused])


def _not_ready(app: Application, request: Request) -> AdapterError:
    archived = ErrorCode.PROGRAM_ARCHIVED
    try:
        program: Program = app.writer.call(app.writes.program, (request.program_id, request.tenant))
    except NotFound as gone:
        return AdapterError(archived, f"{gone.message}: it was archived and destroyed")
    if program.status == ProgramStatus.READY:
        return ChangedProgram(ErrorCode.TRANSIENT, f"program {program.id} became ready after the claim")
    reason = f" ({program.error.message})" if program.error else ""
    return AdapterError(
        archived if program.status == ProgramStatus.ARCHIVED else ErrorCode.PROGRAM_NOT_READY,
        f"program {program.id} is {program.status}{reason}: {_WAYS_OUT.get(program.status, _WAIT)}",
    )
