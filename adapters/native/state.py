"""Applies an optimized state to a module, after checking all of it.

DSPy's own `load_state` is unsafe here: it sets every key in a state (`config` can send the LM key elsewhere), makes an
LM from it, and applies the texts of fields by position, whatever the fields are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import TypeAdapter

from adapters.port import AdapterError
from dspex import ErrorCode, Signature
from dspex.contract.state import PredictorState, State
from dspex.model import problems
from dspex.signatures.annotations import annotation


def apply_state(module: Any, signature: Signature, state: State) -> None:
    """Give the predictors of a module their demos and texts.

    Args:
        signature: the program's signature.

            Raises:
                AdapterError: `permanent`: the state is for another signature, or a part of it does not fit. The text
            names it.
    """
    if state.signature_digest != signature.digest:
        text = f"was found for another signature, this one has {signature.digest}"
        raise _refusal("signature_digest", text)
    predictors = dict(module.named_predictors())
    ours = {field.name: annotation(field.type, name=field.name.title()) for field in _fields(signature)}
    for path, found in state.predictors.items():
        if path not in predictors:
            raise _refusal(f"predictors.{path}", f"{state.module} has no such predictor, but {', '.join(predictors)}")
        _check(f"predictors.{path}", predictors[path], found, ours)
    for path, found in state.predictors.items():
        predictor = predictors[path]
        if found.signature is not None:
            predictor.signature = predictor.signature.load_state(found.signature.model_dump())
        predictor.demos = [dict(demo) for demo in found.demos]


def _fields(signature: Signature) -> Any:
    return (*signature.inputs, *signature.outputs)


def _check(where: str, predictor: Any, found: PredictorState, ours: Mapping[str, Any]) -> None:
    fields = predictor.signature.fields
    if found.signature is not None and len(found.signature.fields) != len(fields):
        names = ", ".join(fields)
        text = f"there are {len(found.signature.fields)}, for the {len(fields)} fields {names}"
        raise _refusal(f"{where}.signature.fields", text)
    for number, demo in enumerate(found.demos):
        for name, value in demo.items():
            here = f"{where}.demos.{number}.{name}"
            if name == "augmented":
                _validate(bool, value, here)
            elif name not in fields:
                raise _refusal(here, f"is not one of the fields {', '.join(fields)}")
            else:
                _validate(ours.get(name, fields[name].annotation), value, here)


def _validate(kind: Any, value: Any, here: str) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        found = problems(error)[0]
        raise _refusal(f"{here}.{found.field}" if found.field else here, found.message) from None


def _refusal(field: str, text: str) -> AdapterError:
    return AdapterError(ErrorCode.PERMANENT, f"state.{field}: {text}")
