"""Converts signatures and values between our form and DSPy's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import dspy
from dspy.signatures.signature import make_signature
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json, to_jsonable_python

from adapters.native import media
from adapters.port import AdapterError
from dspex import ErrorCode, Signature, SignatureField
from dspex.signatures.annotations import LENIENT, constraints, forget_types, unconstrained
from dspex.signatures.classes import is_class
from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import StringType
from dspex.signatures.types import (
    ArrayType,
    FieldType,
    MapType,
    ObjectType,
    OptionalType,
    TupleType,
    UnionType,
    resolved,
    takes_null,
)

LARGE_BYTES = 1_000_000
"""Above this size, the caches of `typing` are cleared of a signature's classes."""


def dspy_signature(signature: Signature | type[dspy.Signature]) -> Any:
    """The signature as a DSPy class, which it may be already.

    Does not use DSPy's text form, because its parser imports the modules that a text names.
    """
    if not isinstance(signature, Signature):
        return signature
    fields = {field.name: (_annotation(field), dspy.InputField(**_details(field))) for field in signature.inputs}
    fields |= {field.name: (_annotation(field), dspy.OutputField(**_details(field))) for field in signature.outputs}
    made = make_signature(fields, signature.instructions or None)
    if signature.size > LARGE_BYTES:
        forget_types()
    return made


def dspy_inputs(signature: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as keyword arguments of a DSPy module: only those of the signature, as objects where DSPy has them.

    DSPy takes some keyword arguments as instructions: `config={"api_base": ...}` sends the key to another address.

    Raises:
        AdapterError: `invalid_input`: `prediction` has a form that DSPy takes as a setting (predict/predict.py), or a
            turn has one that it takes for calls of tools.
    """
    given = inputs.get("prediction")
    if isinstance(given, Mapping) and given.get("type") == "content" and "content" in given:
        text = "prediction: DSPy takes an object with type 'content' for a setting of the LM: change it"
        raise AdapterError(ErrorCode.INVALID_INPUT, text)
    arguments = {field.name: inputs.get(field.name) for field in signature.inputs}
    for name, objects in signature.input_objects.items():
        # A prompt shows an instance with its defaults, in the order of its class.
        with suppress(ValidationError):
            arguments[name] = objects.validate_python(arguments[name])
    return media.with_objects(signature, arguments) if signature.attachments else arguments


def json_outputs(signature: Signature, prediction: Any) -> dict[str, Any]:
    """The signature's outputs in a `dspy.Prediction`, as JSON values. They are not validated yet."""
    # By item, as an attribute may be something else, such as the method `copy`.
    return {field.name: _plain(prediction[field.name], field.type) for field in signature.outputs}


def _annotation(field: SignatureField) -> Any:
    return media.annotation_of(field.type) or unconstrained(field.type, LENIENT, name=field.name.title())


def _details(field: SignatureField) -> dict[str, Any]:
    # DSPy shows the LM the constraints of the field, but not those in its annotation.
    details = constraints(field.type)
    # Of a class with a name, the description is in its schema.
    has_own = is_class(field.type) and not isinstance(field.type, RefType)
    description = field.description or (None if has_own else field.type.description)
    return details | ({"desc": description} if description else {})


def _plain(value: Any, field_type: FieldType) -> Any:
    field_type = resolved(field_type)
    if isinstance(field_type, OptionalType):
        inner = resolved(field_type.anyOf[0])
        if isinstance(inner, StringType) and value in ("None", "null"):
            return None  # DSPy does not convert texts by which an LM says "nothing"
        return None if value is None else _plain(value, inner)
    if isinstance(field_type, UnionType) and takes_null(field_type) and value in ("None", "null"):
        return None
    return _pruned(_dumped(value), field_type)


def _dumped(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        case list() | tuple():
            return [_dumped(item) for item in value]
        case set() | frozenset():
            return sorted((_dumped(item) for item in value), key=to_json)
        case dict():
            return {key: _dumped(item) for key, item in value.items()}
        case str() | int() | float() | None:
            return value
        case _:
            return to_jsonable_python(value, fallback=str)  # a date, for instance


def _pruned(value: Any, field_type: FieldType) -> Any:
    """The value without the nulls that an LM writes for omitted properties."""
    match resolved(field_type), value:
        case ObjectType(properties=properties, required=required), dict():
            return {
                key: _pruned(item, properties[key])
                for key, item in value.items()
                if item is not None or key in required or takes_null(properties[key])
            }
        case ArrayType(items=inner, uniqueItems=is_set), list():
            items = [_pruned(item, inner) for item in value]
            return sorted(items, key=to_json) if is_set else items  # a set has no order, or any
        case TupleType(prefixItems=inners), list() if len(inners) == len(value):
            return [_pruned(item, inner) for item, inner in zip(value, inners, strict=True)]
        case MapType(additionalProperties=inner), dict():
            return {key: _pruned(item, inner) for key, item in value.items()}
        case OptionalType(anyOf=(inner, _)), _:
            return _pruned(value, inner)
        case _:
            return value
