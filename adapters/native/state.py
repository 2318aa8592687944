"""Applies an optimized state to a module, after checking all of it.

DSPy's own `load_state` is unsafe here: it sets every key in a state (`config` can send the LM key elsewhere), makes an
LM from it, and applies the texts of fields by position, whatever the fields are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic import TypeAdapter
from pydantic_core import to_json

from adapters.native.media import demo_value, holds_media
from adapters.port import AdapterError
from dspex import ErrorCode, Signature, SignatureField
from dspex.contract.state import PredictorState, SignatureText, State
from dspex.model import problems
from dspex.signatures.annotations import JSON, LENIENT, annotation
from dspex.signatures.classes import has_objects

_NAMED = re.compile(r"\$\{(\w+)\}")
"""The description that DSPy gives to a field without one: it names the field."""


def apply_state(module: Any, signature: Signature, state: State, *, own: bool = False) -> None:
    """Give the predictors of a module their demos and texts.

    What a demo has besides the fields of the predictor is left out: examples of a training set go to every predictor of
    a module, and may have columns of their own. DSPy shows none of it to the LM.

    Args:
        signature: the program's signature.
        own: the module is one of one's own: a field of its predictors may have the name of one of the program's, and
            another type.

    Raises:
        AdapterError: `permanent`: the state is for another signature, or a part of it does not fit. The text names it.
    """
    if state.signature_digest not in (None, signature.digest):
        text = f"was found for another signature, this one has {signature.digest}"
        raise _refusal("signature_digest", text)
    predictors = dict(module.named_predictors())
    fields = () if own else (*signature.inputs, *signature.outputs)
    ours = {field.name: _kind(field) for field in fields}
    for path, found in state.predictors.items():
        if path not in predictors:
            name = state.module or type(module).__name__
            raise _refusal(f"predictors.{path}", f"{name} has no such predictor, but {', '.join(predictors)}")
        _check(f"predictors.{path}", predictors[path], found, ours)
    for path, found in state.predictors.items():
        predictor = predictors[path]
        if found.signature is not None:
            predictor.signature = predictor.signature.load_state(found.signature.model_dump())
        predictor.demos = [_shown(predictor.signature.fields, demo) for demo in found.demos]


def _shown(fields: Mapping[str, Any], demo: Mapping[str, Any]) -> dict[str, Any]:
    """What DSPy shows of a demo: the values of fields, with objects for images, audio and files."""
    return {
        name: demo_value(fields[name].annotation, value) if _is_media(fields, name, value) else value
        for name, value in demo.items()
        if name == "augmented" or name in fields
    }


def _is_media(fields: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in fields and value is not None and holds_media(fields[name].annotation)


def _kind(field: SignatureField) -> tuple[Any, bool]:
    """The annotation for the values of a field, and whether they are read strictly.

    A class is not: where it has validators, pydantic takes what is in it for Python's values, and no text for a date.
    """
    is_class = has_objects(field.type)
    return annotation(field.type, LENIENT if is_class else JSON, name=field.name.title()), not is_class


def _check(where: str, predictor: Any, found: PredictorState, ours: Mapping[str, tuple[Any, bool]]) -> None:
    fields = predictor.signature.fields
    if found.signature is not None:
        _check_texts(f"{where}.signature.fields", predictor.signature, found.signature)
    for number, demo in enumerate(found.demos):
        here = f"{where}.demos.{number}"
        for name, value in demo.items():
            if _is_media(fields, name, value):
                try:
                    demo_value(fields[name].annotation, value)
                except ValueError as error:
                    raise _refusal(f"{here}.{name}", str(error)) from None
            elif name == "augmented":
                _validate(bool, True, value, f"{here}.{name}")
            elif name in fields and value is not None:  # None: not supplied
                _validate(*ours.get(name, (fields[name].annotation, False)), value, f"{here}.{name}")
        if not fields.keys() & demo.keys():
            raise _refusal(here, f"has none of the fields {', '.join(fields)}")


def _check_texts(where: str, signature: Any, found: SignatureText) -> None:
    """Check that the texts are of these fields: they are applied by position, and do not name their fields.

    Only what DSPy derives from a field's name tells which field it was; a text of one's own fits any.
    """
    names = list(signature.fields)
    if len(found.fields) != len(names):
        raise _refusal(where, f"there are {len(found.fields)}, for the {len(names)} fields {', '.join(names)}")
    prefixes = [text["prefix"] for text in signature.dump_state()["fields"]]
    for number, (name, prefix, text) in enumerate(zip(names, prefixes, found.fields, strict=True)):
        described = _NAMED.fullmatch(text.description)
        of = described[1] if described else name
        if not described and text.prefix != prefix and text.prefix in prefixes:
            of = names[prefixes.index(text.prefix)]
        if of != name:
            raise _refusal(f"{where}.{number}", f"is of a field '{of}', and the predictor has '{name}' there")


def _validate(kind: Any, strict: bool, value: Any, here: str) -> None:
    try:
        # By name, too: DSPy dumps the attributes of a class, whatever their aliases.
        TypeAdapter(kind).validate_json(to_json(value), strict=strict, by_alias=True, by_name=True)
    except pydantic.ValidationError as error:
        found = problems(error)[0]
        raise _refusal(f"{here}.{found.field}" if found.field else here, found.message) from None


def _refusal(field: str, text: str) -> AdapterError:
    return AdapterError(ErrorCode.PERMANENT, f"state.{field}: {text}")
