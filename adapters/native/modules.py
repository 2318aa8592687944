"""The DSPy modules that can be built from JSON: what each takes as parameters, and which names are its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy
from pydantic import Field

from adapters.native.signatures import dspy_signature, without_marker
from adapters.parameters import Parameters, read_parameters
from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Signature


class NoParameters(Parameters):
    """The module has no parameters."""


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

    def __init__(self, signature: Any, parameters: ComparisonParameters) -> None:
        super().__init__()
        self.count = parameters.M
        config: dict[str, Any] = {"temperature": parameters.temperature}
        self.chain = dspy.ChainOfThought(signature, **config)
        self.compare = dspy.MultiChainComparison(signature, M=parameters.M, **config)

    def forward(self, **inputs: Any) -> Any:
        """Make the chains, one after the other, then the comparison."""
        last = self.compare.last_key
        chains = [self.chain(**inputs) for _ in range(self.count)]
        # What an LM wrote goes into the next prompt: an order to DSPy must not come in by it.
        attempts = [
            {"reasoning": without_marker(str(chain["reasoning"])), last: without_marker(str(chain[last]))}
            for chain in chains
        ]
        return self.compare(attempts, **inputs)


@dataclass(frozen=True)
class _Kind:
    parameters: type[Parameters]
    build: Callable[[Any, Any], Any]
    own_names: frozenset[str] = frozenset()


_KINDS = {
    "Predict": _Kind(NoParameters, lambda signature, _: dspy.Predict(signature)),
    "ChainOfThought": _Kind(
        NoParameters, lambda signature, _: dspy.ChainOfThought(signature), frozenset({"reasoning"})
    ),
    "MultiChainComparison": _Kind(
        ComparisonParameters,
        ChainsCompared,
        frozenset({"reasoning", "rationale"} | {f"reasoning_attempt_{number}" for number in range(1, 17)}),
    ),
}


def build_module(signature: Signature, configuration: Configuration) -> Any:
    """The DSPy module of a program.

    Raises:
        AdapterError: `permanent`; an unknown module, a wrong parameter, or a field whose name the module needs.
    """
    kind = _KINDS.get(configuration.module)
    if kind is None:
        known = ", ".join(_KINDS)
        raise AdapterError(ErrorCode.PERMANENT, f"module: '{configuration.module}' is not one of {known}")
    parameters = read_parameters(kind.parameters, configuration.parameters)
    for field in (*signature.inputs, *signature.outputs):
        if field.name in kind.own_names:
            text = f"signature: {configuration.module} has a field '{field.name}' of its own: rename yours"
            raise AdapterError(ErrorCode.PERMANENT, text)
    return kind.build(dspy_signature(signature), parameters)
