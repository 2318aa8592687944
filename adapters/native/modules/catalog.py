"""The DSPy modules that can be built from JSON, with their parameters and reserved field names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from adapters.modules import unknown_module
from adapters.native.modules.agent import Agent, AgentParameters
from adapters.native.modules.comparison import ChainsCompared, ComparisonParameters
from adapters.native.modules.lms import give_lms
from adapters.native.modules.own import build_own
from adapters.native.modules.search import HINT, BestOfN, Refine, SearchParameters
from adapters.native.signatures import dspy_signature
from adapters.native.state import apply_state
from adapters.parameters import Parameters, read_parameters
from adapters.port import AdapterError, ModuleCode
from dspex import Configuration, ErrorCode, Signature


class NoParameters(Parameters):
    """The module has no parameters."""


@dataclass(frozen=True)
class _Kind:
    parameters: type[Parameters]
    build: Callable[[Signature, Any, str], Any]
    own_names: frozenset[str] = frozenset()
    may_declare: frozenset[str] = frozenset()


_REASONING = frozenset({"reasoning"})

_KINDS = {
    "Predict": _Kind(NoParameters, lambda signature, *_: dspy.Predict(dspy_signature(signature))),
    "ChainOfThought": _Kind(
        NoParameters,
        lambda signature, *_: dspy.ChainOfThought(dspy_signature(signature)),
        _REASONING,
        _REASONING,  # with the signature's type and description, but still before the other outputs
    ),
    "MultiChainComparison": _Kind(
        ComparisonParameters,
        ChainsCompared,
        _REASONING | {"rationale"} | {f"reasoning_attempt_{number}" for number in range(1, 17)},
    ),
    "BestOfN": _Kind(SearchParameters, BestOfN, _REASONING),
    "Refine": _Kind(SearchParameters, Refine, _REASONING | {HINT}),
    "ReAct": _Kind(
        AgentParameters,
        lambda signature, parameters, _: Agent(signature, parameters),
        # DSPy takes an input named `max_iters` as an instruction.
        _REASONING | {"trajectory", "next_thought", "next_tool_name", "next_tool_args", "max_iters"},
    ),
}


def build_module(
    signature: Signature,
    configuration: Configuration,
    model: str,
    code: ModuleCode | None = None,
    lms: Mapping[str, Any] | None = None,
) -> Any:
    """Build the DSPy module of a program for an LM, with its state.

    Args:
        code: of a module of one's own.
        lms: those that the program names for predictors (`Configuration.lms`).

    Raises:
        NotHere: this process has no such module.
        AdapterError: `permanent`: an invalid parameter or state, a reward or tool that is not
            registered, or a field with a name that the module reserves.
    """
    if code is not None:
        module = build_own(code, signature, configuration)
        if configuration.state is not None:
            apply_state(module, signature, configuration.state, own=True)
        give_lms(module, lms or {})
        return module
    kind = _KINDS.get(configuration.module)
    if kind is None:
        raise unknown_module(configuration.module)
    parameters = read_parameters(kind.parameters, configuration.parameters)
    outputs = (field for field in signature.outputs if field.name not in kind.may_declare)
    for field in (*signature.inputs, *outputs):
        if field.name in kind.own_names:
            text = f"signature: {configuration.module} has a field '{field.name}' of its own: rename yours"
            raise AdapterError(ErrorCode.PERMANENT, text)
    module = kind.build(signature, parameters, model)
    if configuration.state is not None:
        apply_state(module, signature, configuration.state)
    give_lms(module, lms or {})
    if isinstance(module, Refine):
        module.prepare()
    return module
