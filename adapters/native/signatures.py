"""Between our signatures and values and DSPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy
from dspy.signatures.signature import make_signature
from pydantic import BaseModel

from adapters.port import AdapterError
from dspex import ErrorCode, Signature, SignatureField
from dspex.signatures.annotations import constraints, forget_types, unconstrained
from dspex.signatures.types import ArrayType, FieldType, MapType, ObjectType, OptionalType, StringType

LARGE_BYTES = 1_000_000
"""Classes of more than that are not left to the caches of `typing`."""


def dspy_signature(signature: Signature) -> Any:
    """The signature as DSPy's class.

    Never by way of DSPy's text form, whose reader imports the modules that the text names.
    """
    fields = {field.name: (_annotation(field), dspy.InputField(**_details(field))) for field in signature.inputs}
    fields |= {field.name: (_annotation(field), dspy.OutputField(**_details(field))) for field in signature.outputs}
    made = make_signature(fields, signature.instructions or None)
    if signature.size > LARGE_BYTES:
        forget_types()
    return made


def dspy_inputs(signature: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as keyword arguments of a DSPy module: the signature's and no others.

    DSPy takes some keyword arguments as orders: `config={"api_base": ...}` sends the key to another address.

    Raises:
        AdapterError: `invalid_input`; `prediction` is what DSPy takes out of the inputs (predict/predict.py).
    """
    given = inputs.get("prediction")
    if isinstance(given, Mapping) and given.get("type") == "content" and "content" in given:
        text = "prediction: DSPy takes an object with type 'content' for a setting of the LM: change it"
        raise AdapterError(ErrorCode.INVALID_INPUT, text)
    return {field.name: inputs.get(field.name) for field in signature.inputs}


def json_outputs(signature: Signature, prediction: Any) -> dict[str, Any]:
    """The signature's outputs of a `dspy.Prediction`, as JSON values; not validated yet."""
    # By item: an attribute of the same name, such as `copy`, would come first.
    return {field.name: _plain(prediction[field.name], field.type) for field in signature.outputs}


def _annotation(field: SignatureField) -> Any:
    return unconstrained(field.type, strict=False, name=field.name.title())


def _details(field: SignatureField) -> dict[str, Any]:
    # DSPy tells the LM of constraints that are given to the field, not of those in its annotation.
    details = {key: value for key, value in constraints(field.type).items() if key != "allow_inf_nan"}
    description = field.description or field.type.description
    return details | ({"desc": description} if description else {})


def _plain(value: Any, field_type: FieldType) -> Any:
    if isinstance(field_type, OptionalType):
        inner = field_type.anyOf[0]
        if isinstance(inner, StringType) and value in ("None", "null"):
            return None  # DSPy leaves what the LM wrote for "nothing" as it is
        return None if value is None else _plain(value, inner)
    return _pruned(_dumped(value), field_type)


def _dumped(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        case list():
            return [_dumped(item) for item in value]
        case dict():
            return {key: _dumped(item) for key, item in value.items()}
        case _:
            return value


def _pruned(value: Any, field_type: FieldType) -> Any:
    """Without the nulls that an LM writes for properties it leaves out."""
    match field_type, value:
        case ObjectType(properties=properties, required=required), dict():
            return {
                key: _pruned(item, properties[key])
                for key, item in value.items()
                if item is not None or key in required or isinstance(properties[key], OptionalType)
            }
        case ArrayType(items=inner), list():
            return [_pruned(item, inner) for item in value]
        case MapType(additionalProperties=inner), dict():
            return {key: _pruned(item, inner) for key, item in value.items()}
        case OptionalType(anyOf=(inner, _)), _:
            return _pruned(value, inner)
        case _:
            return value
