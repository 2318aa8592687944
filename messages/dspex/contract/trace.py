"""The trace of an execution: the steps of a run, with prompts and answers, for people who inspect it."""

from __future__ import annotations

from uuid import UUID

from pydantic import AwareDatetime, Field, JsonValue

from dspex.model import Frozen


class TraceStep(Frozen):
    """One step of a run, for people who inspect it.

    Attributes:
        kind: `predictor`, `lm_call`, `tool`, or `output` for text that the program printed.
        name: of the predictor, the model, the tool, or `stdout` and `stderr`.
        details: the inputs and outputs of the step, by name.
        duration_ms: milliseconds, if measured.
    """

    kind: str
    name: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    duration_ms: float | None = None


class ExecutionTrace(Frozen):
    """The steps of an execution's last traced attempt, in the order in which they ended.

    It is there if the execution asked for it (`options.trace`), or was drawn (`policy.trace_rate`), and an attempt has
    ended since. `shortened`: it was too large to be kept whole, so texts were cut, or steps have no details.
    """

    execution_id: UUID
    attempt: int
    steps: tuple[TraceStep, ...]
    shortened: bool
    inserted_at: AwareDatetime
