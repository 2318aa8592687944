"""How one execution runs, and when."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from dspex.contract.configuration import LMParameters
from dspex.model import Sparse
from dspex.scalars import WHOLE, Moment

Metadata = Annotated[
    dict[Annotated[StrictStr, Field(min_length=1, max_length=64)], Annotated[StrictStr, Field(max_length=256)]],
    Field(max_length=16),
]
"""A caller's notes on an execution: at most 16 short strings by name. DSPex stores and returns them, and reads none."""


class Lane(StrEnum):
    """Which of the waiting executions of all programs are chosen first: by weights, so that no lane stands still."""

    HIGH = "high"
    DEFAULT = "default"
    BULK = "bulk"

    @property
    def number(self) -> int:
        """Its place in the order: 0 is chosen most often."""
        return _LANES.index(self)


_LANES = tuple(Lane)


class ExecutionOptions(Sparse):
    """How one execution runs, and when.

    Before `not_before` the execution stays pending. An execution that has not begun an attempt by its `deadline` fails
    with `expired`; an attempt that runs is ended at the deadline. Both are compared with the database's clock.
    """

    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 63), WHOLE] | None = None
    """Passed to the adapter. With another seed, `mock` draws other outputs."""
    trace: StrictBool | None = None
    """Whether to keep the steps of its last attempt, with prompts and answers. By default its program's policy says."""
    lm: LMParameters | None = None
    """Parameters of its LM calls, in the place of the program's. Its LM says which may be given (`lm.overridable`)."""
    lane: Lane | None = None
    """`high`, `default` or `bulk`; `default` by default."""
    not_before: Moment | None = None
    deadline: Moment | None = None

    @model_validator(mode="after")
    def _leaves_time(self) -> ExecutionOptions:
        if self.not_before is not None and self.deadline is not None and self.deadline <= self.not_before:
            raise ValueError("deadline: must be later than not_before")
        return self
