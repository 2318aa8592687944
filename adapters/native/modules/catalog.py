"""The DSPy modules that can be built from JSON, with their parameters and reserved field names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy
from pydantic import JsonValue

from adapters.modules import unknown_module
from adapters.native.modules.agent import Agent, AgentParameters
from adapters.native.modules.comparison import ChainsCompared, ComparisonParameters
from adapters.native.modules.lms import give_lms
from adapters.native.modules.own import build_own
from adapters.native.modules.parts import give_parts
from adapters.native.modules.search import HINT, BestOfN, Refine, SearchParameters
from adapters.native.signatures import dspy_signature
from adapters.native.state import apply_state
from adapters.parameters import Parameters, read_parameters
from adapters.port import AdapterError, ModuleCode
from dspex import Configuration, ErrorCode, Signature
from dspex.contract.configuration import Part


class NoParameters(Parameters):
    """The module has no parameters."""


@dataclass(frozen=True)
class _Kind:
    parameters: type[Parameters]
    build: Callable[[Any, Any, str], Any]
    """Of a signature, ours or DSPy's class, parameters and the name of the LM's model."""
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
    part_lms: Mapping[str, Any] | None = None,
) -> Any:
    """Build the DSPy module of a program for an LM, with its state.

    Args:
        code: of a module of one's own.
        lms: those that the program names for predictors (`Configuration.lms`).
        part_lms: those that it names for parts (`Configuration.modules`).

    Raises:
        NotHere: this process has no such module.
        AdapterError: `permanent`: an invalid parameter or state, a reward or tool that is not
            registered, or a field with a name that the module reserves.
    """
    if code is None:
        return _build_dspys(signature, configuration, model, lms or {})
    module = build_own(code, signature, configuration)
    parts = give_parts(module, configuration.modules, part_lms or {}, partial(_build_part, model=model), lms or {})
    if configuration.state is not None:
        apply_state(module, signature, configuration.state, own=True)
    give_lms(module, lms or {})
    for part in parts:
        _prepare(part)
    return module


def _build_dspys(signature: Signature, configuration: Configuration, model: str, lms: Mapping[str, Any]) -> Any:
    """Build one of DSPy's modules."""
    if configuration.modules:
        text = f"modules: '{configuration.module}' has no parts to name: they are those of a module of one's own"
        raise AdapterError(ErrorCode.PERMANENT, text)
    if configuration.module not in _KINDS:
        raise unknown_module(configuration.module)
    names = [field.name for field in signature.inputs], [field.name for field in signature.outputs]
    module = _make(configuration.module, signature, *names, configuration.parameters, model)
    if configuration.state is not None:
        apply_state(module, signature, configuration.state)
    give_lms(module, lms)
    _prepare(module)
    return module


def _build_part(part: Part, signature: Any, lm: Any, *, model: str) -> Any:
    """Build a part of a module of one's own, over DSPy's class of a signature."""
    if part.module not in _KINDS:
        raise AdapterError(ErrorCode.PERMANENT, f"module: '{part.module}' is not one of {', '.join(_KINDS)}")
    names = list(signature.input_fields), list(signature.output_fields)
    return _make(part.module, signature, *names, part.parameters, model if lm is None else lm.model)


def _make(
    name: str,
    signature: Any,
    inputs: Collection[str],
    outputs: Collection[str],
    given: Mapping[str, JsonValue],
    model: str,
) -> Any:
    kind = _KINDS[name]
    parameters = read_parameters(kind.parameters, given)
    for field in (*inputs, *(field for field in outputs if field not in kind.may_declare)):
        if field in kind.own_names:
            text = f"signature: {name} has a field '{field}' of its own: rename yours"
            raise AdapterError(ErrorCode.PERMANENT, text)
    return kind.build(signature, parameters, model)


def _prepare(module: Any) -> None:
    """What is made when the state has been applied."""
    if isinstance(module, Refine):
        module.prepare()
