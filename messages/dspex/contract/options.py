"""How one execution runs, and when."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt, StrictStr, model_validator

from dspex.model import Sparse
from dspex.scalars import WHOLE, Moment

Metadata = Annotated[
    dict[Annotated[StrictStr, Field(min_length=1, max_length=64)], Annotated[StrictStr, Field(max_length=256)]],
    Field(max_length=16),
]
"""What a caller says of an execution: at most 16 short strings by name, kept and told with it and never read."""


class ExecutionOptions(Sparse):
    """How one execution runs, and when.

    `not_before`: it waits in the database until then. `deadline`: one that has not begun an attempt by then fails with
    `expired`; one that runs has until then. Both are judged by the database's clock.
    """

    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 63), WHOLE] | None = None
    """Passed to the adapter; `mock` draws other outputs from another seed."""
    not_before: Moment | None = None
    deadline: Moment | None = None

    @model_validator(mode="after")
    def _leaves_time(self) -> ExecutionOptions:
        if self.not_before is not None and self.deadline is not None and self.deadline <= self.not_before:
            raise ValueError("deadline: must be later than not_before")
        return self
