"""How one execution runs."""

from __future__ import annotations

from pydantic import Field, StrictInt

from dspex.model import Frozen


class ExecutionOptions(Frozen):
    """How one execution runs."""

    seed: StrictInt | None = Field(default=None, ge=0, lt=1 << 63)
    """Passed to the adapter; `mock` draws other outputs from another seed."""
