"""`MultiChainComparison`: several chains of thought, then one answer that compares them."""

from __future__ import annotations

from typing import Any, Final

import dspy
from pydantic import Field

from adapters.native.modules.temperature import temperature_of
from adapters.native.signatures import dspy_signature
from adapters.parameters import Parameters
from dspex import Signature

TEMPERATURE: Final = 0.7


class ComparisonParameters(Parameters):
    """The parameters of `MultiChainComparison`, with DSPy's names.

    Attributes:
        M: how many chains of thought are compared. A run makes M + 1 LM calls.
        temperature: for all calls; it overrides the LM's, as at 0 the chains would be equal. By default 0.7, DSPy's
            default; not sent to a model with a fixed temperature.
    """

    M: int = Field(default=3, ge=1, le=16)
    temperature: float | None = Field(default=None, ge=0, le=2)


class ChainsCompared(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Makes the chains of thought, which `dspy.MultiChainComparison` only compares."""

    def __init__(
        self, signature: Signature | type[dspy.Signature], parameters: ComparisonParameters, model: str
    ) -> None:
        super().__init__()
        self.count = parameters.M
        config: dict[str, Any] = temperature_of(parameters.temperature, TEMPERATURE, model)
        task = dspy_signature(signature)
        self.chain = dspy.ChainOfThought(task, **config)
        # Explicitly None if there is none: otherwise DSPy sends its own default.
        given: dict[str, Any] = {"temperature": None} | config
        self.compare = dspy.MultiChainComparison(task, M=parameters.M, **given)

    def forward(self, **inputs: Any) -> Any:
        """Make the chains, one after the other, then the comparison."""
        last = self.compare.last_key
        chains = [self.chain(**inputs) for _ in range(self.count)]
        attempts = [{"reasoning": str(chain["reasoning"]), last: str(chain[last])} for chain in chains]
        return self.compare(attempts, **inputs)
