"""`MultiChainComparison`: several chains of thought, then one answer that compares them."""

from __future__ import annotations

from typing import Any

import dspy
from pydantic import Field

from adapters.native.signatures import dspy_signature
from adapters.parameters import Parameters
from dspex import Signature


class ComparisonParameters(Parameters):
    """Of `MultiChainComparison`, by DSPy's names.

    Attributes:
        M: how many chains of thought are made and compared: a run makes M + 1 LM calls.
        temperature: of all of them, over the LM's own: at 0 the chains would be alike.
    """

    M: int = Field(default=3, ge=1, le=16)
    temperature: float = Field(default=0.7, ge=0, le=2)


class ChainsCompared(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.MultiChainComparison` only compares: this makes the chains of thought as well."""

    def __init__(self, signature: Signature, parameters: ComparisonParameters) -> None:
        super().__init__()
        self.count = parameters.M
        config: dict[str, Any] = {"temperature": parameters.temperature}
        task = dspy_signature(signature)
        self.chain = dspy.ChainOfThought(task, **config)
        self.compare = dspy.MultiChainComparison(task, M=parameters.M, **config)

    def forward(self, **inputs: Any) -> Any:
        """Make the chains, one after the other, then the comparison."""
        last = self.compare.last_key
        chains = [self.chain(**inputs) for _ in range(self.count)]
        attempts = [{"reasoning": str(chain["reasoning"]), last: str(chain[last])} for chain in chains]
        return self.compare(attempts, **inputs)
