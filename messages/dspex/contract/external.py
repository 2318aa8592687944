"""The commands for external executions: a service runs something itself, and DSPex keeps and counts it like any other.

No worker runs what `CreateExecution` made. The service marks it: running, for a time that it renews, and then completed
or failed. Each mark names the `lock_version` of the answer before, and has an id: the same mark again is the same mark.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, JsonValue, StrictFloat, StrictInt, StrictStr, field_validator

from dspex.contract.callback import Callback
from dspex.contract.commands import Command, IdempotencyKey
from dspex.contract.options import Metadata
from dspex.contract.results import ExecutionView
from dspex.contract.status import ErrorCode
from dspex.model import Frozen
from dspex.scalars import WHOLE

MAX_LEASE_SECONDS = 86_400.0
DEFAULT_LEASE_SECONDS = 300.0
MAX_DURATION_MS = 366 * 86_400_000.0
MAX_TOKENS = 10**12
MAX_COST = 1e9
MAX_ERROR_CHARACTERS = 2_000

OURS = frozenset({ErrorCode.CANCELLED, ErrorCode.LEASE_EXPIRED})
"""The codes that only DSPex gives to an external execution."""

Count = Annotated[StrictInt, Field(ge=0, le=MAX_TOKENS), WHOLE]
Duration = Annotated[StrictFloat, Field(ge=0, le=MAX_DURATION_MS)]
"""Milliseconds."""


class CreateExecution(Command):
    """Create an execution that a service runs itself: pending until it is marked, and never run by a worker.

    The inputs must fit the program's signature; the program need not be ready. Ids, `idempotency_key`, `callback` and
    `metadata` are as in `dspex.program.execute.v1`; for that command, the id and the key of an external execution
    belong to another request.
    """

    type = "dspex.execution.create.v1"
    answer = ExecutionView

    execution_id: UUID
    program_id: UUID
    inputs: dict[str, JsonValue]
    idempotency_key: IdempotencyKey | None = None
    callback: Callback | None = None
    metadata: Metadata | None = None


class Mark(Command):
    """Base of the marks.

    Attributes:
        lock_version: that of the execution as it was answered last; another is a conflict.
        mark: the id of this mark, which its sender chooses. The same mark again changes nothing, and is answered.
    """

    answer = ExecutionView

    execution_id: UUID
    lock_version: Annotated[StrictInt, Field(ge=1), WHOLE]
    mark: UUID


class ReportedUsage(Frozen):
    """The LM calls of an external execution. Tokens and cost (in US dollars) are null if they are not known."""

    calls: Annotated[StrictInt, Field(ge=0, le=1_000_000), WHOLE] = 0
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cost: Annotated[StrictFloat, Field(ge=0, le=MAX_COST)] | None = None


class ReportedError(Frozen):
    """Why an external execution failed: a code of the closed set, and one line for people."""

    code: ErrorCode
    message: Annotated[StrictStr, Field(min_length=1, max_length=MAX_ERROR_CHARACTERS)]

    @field_validator("code")
    @classmethod
    def _is_theirs(cls, code: ErrorCode) -> ErrorCode:
        if code in OURS:
            raise ValueError(f"'{code}' is told by DSPex alone: cancel the execution, or give another code")
        return code


class MarkRunning(Mark):
    """pending → running, for `expires_in` seconds. Of one that runs: another `expires_in` seconds from now.

    A renewal does not change `lock_version`. If neither an end nor a renewal comes in time, the execution fails with
    `lease_expired`.
    """

    type = "dspex.execution.mark_running.v1"

    expires_in: StrictFloat = Field(default=DEFAULT_LEASE_SECONDS, ge=1, le=MAX_LEASE_SECONDS)


class MarkCompleted(Mark):
    """running → completed, with outputs that fit the signature which the program has now.

    `extra_outputs` may have what the program's `extra_outputs` names. Without `usage`, tokens and cost are not known;
    without `duration_ms`, it is the time since the execution was marked running.
    """

    type = "dspex.execution.mark_completed.v1"

    outputs: dict[str, JsonValue]
    extra_outputs: dict[str, JsonValue] | None = None
    usage: ReportedUsage | None = None
    duration_ms: Duration | None = None


class MarkFailed(Mark):
    """running → failed. There are no retries: a service tries again before it tells, or creates another execution."""

    type = "dspex.execution.mark_failed.v1"

    error: ReportedError
    usage: ReportedUsage | None = None
    duration_ms: Duration | None = None
