"""Puts what a program names for its parts in the place of a module's predictors (`Configuration.modules`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import dspy

from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.contract.configuration import Part
from dspex.contract.predictors import matching

Build = Callable[[Part, Any, Any], Any]
"""Builds a part over DSPy's class of a signature, for an LM; None: that of the run."""

_STEP = re.compile(r"(?:^|\.)([A-Za-z_]\w*)|\[(\d+)\]|\['([^']*)'\]")
_SELF = "self"
_ROOT = "the module is a predictor itself: name its class in 'module'"


def give_parts(
    module: Any, parts: Mapping[str, Part], lms: Mapping[str, Any], build: Build, others: Collection[str] = ()
) -> list[Any]:
    """Build each part over the signature of a predictor that it names, and put it in the predictor's place.

    A `dspy.ChainOfThought` is one part with its predictor, without the `reasoning` that it has added. An LM that the
    code has set is that of the part; its config and demos are those of a `Predict` and a `ChainOfThought`.

    Args:
        lms: those of parts, by the same names and patterns.
        others: the names and patterns in `Configuration.lms`.

    Returns:
        The modules that were built.

    Raises:
        AdapterError: `permanent`: a name is of no predictor (the text has those that there are), a module is unknown,
            does not take its parameters, or cannot be awaited as the module does; or a predictor has two LMs.
    """
    made: dict[int, Any] = {}
    unused = set(parts)
    predictors = dict(module.named_predictors()) if parts else {}
    for path, predictor in predictors.items():
        found = matching(path, parts)
        unused -= set(found)
        if not found:
            continue
        name, lm = found[0], lms.get(found[0])
        if lm is not None and (other := matching(path, others)):
            raise _refusal(f"modules.{name}.lm: lms.{other[0]} has an LM for '{path}', too: remove one of them")
        made[id(predictor)] = _part(module, path, predictor, name, parts[name], lm, build)
    if unused:
        known = ", ".join(predictors) or "none"
        raise _refusal(f"modules.{min(unused)}: no predictor has this name (there are: {known})")
    while left := [
        (path, made[id(old)]) for path, old in module.named_predictors() if made.get(id(old), old) is not old
    ]:
        for path, part in left:  # more than once if a module has it by several names
            _put(module, _place(module, path), part)
    built = {id(part): part for key, part in made.items() if id(part) != key}
    return list(built.values())


def _part(module: Any, path: str, predictor: Any, name: str, part: Part, lm: Any, build: Build) -> Any:
    """What comes into the place of a predictor: a part, or itself."""
    if part.module is None:
        predictor.lm = lm
        return predictor
    if path == _SELF:
        raise _refusal(f"modules.{name}: {_ROOT}")
    signature = predictor.signature if _place(module, path) == path else _without_reasoning(predictor.signature)
    try:
        made = build(part, signature, lm)
    except AdapterError as error:
        raise error.under(f"modules.{name}.") from None
    if not hasattr(type(module), "forward") and not hasattr(type(made), "aforward"):
        raise _refusal(f"modules.{name}.module: '{part.module}' cannot be awaited, and the module has 'aforward' alone")
    for inner in made.predictors():
        inner.lm = predictor.lm if lm is None else lm
        if type(made) in (dspy.Predict, dspy.ChainOfThought):
            inner.config, inner.demos = predictor.config, predictor.demos
    return made


def _place(module: Any, path: str) -> str:
    """The path of what is replaced: the predictor's, or that of the `dspy.ChainOfThought` that it is in."""
    parent, _, last = path.rpartition(".")
    is_thought = parent and last == "predict" and type(_at(module, parent)) is dspy.ChainOfThought
    return parent if is_thought else path


def _without_reasoning(signature: Any) -> Any:
    """The signature that a `dspy.ChainOfThought` was made with."""
    field = signature.output_fields.get("reasoning")
    is_added = field is not None and field.json_schema_extra.get("desc") == "${reasoning}"
    return signature.delete("reasoning") if is_added else signature


def _at(module: Any, path: str) -> Any:
    for step in _STEP.finditer(path):
        name, index, key = step.groups()
        module = getattr(module, name) if name else module[int(index) if index else key]
    return module


def _put(module: Any, path: str, part: Any) -> None:
    *_, last = _STEP.finditer(path)
    name, index, key = last.groups()
    holder = _at(module, path[: last.start()])
    if name:
        setattr(holder, name, part)
    else:
        holder[int(index) if index else key] = part


def _refusal(text: str) -> AdapterError:
    return AdapterError(ErrorCode.PERMANENT, text)
