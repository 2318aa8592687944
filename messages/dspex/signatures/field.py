"""A field of a signature: its name, its type, and whether a value must be given."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import (
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dspex.errors import InvalidSignature
from dspex.model import Frozen
from dspex.signatures.arrow import parse_type
from dspex.signatures.measures import depth, json_schema
from dspex.signatures.types import MAX_DEPTH, FieldType, takes_null

_DSPY_NAMES = (
    "completions, config, demos, fields, input_fields, instance, instructions, lm, new_signature, output_fields, "
    "self, signature"
)
RESERVED_NAMES = frozenset(
    _DSPY_NAMES.split(", ") + [name for name in dir(pydantic.BaseModel) if name.startswith("model_")]
)
"""Names with a meaning to DSPy (3.4) or pydantic, which would not treat them as fields."""


class SignatureField(Frozen):
    """One input or output. `type` may be given as data or in the arrow form (`"list[str]"`).

    An input with a default, or of an optional type, may be left out.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)
    type: FieldType
    description: str | None = Field(default=None, max_length=2_000)
    default: JsonValue = None

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"'{name}' is a reserved name: choose another")
        return name

    @field_validator("type", mode="before")
    @classmethod
    def _read_type(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
        try:
            return parse_type(names.get(value, value))
        except InvalidSignature as error:
            raise ValueError(error.message) from None

    @field_validator("type")
    @classmethod
    def _not_too_deep(cls, value: FieldType) -> FieldType:
        if depth(value) > MAX_DEPTH:
            raise ValueError(f"types nest deeper than {MAX_DEPTH}")
        return value

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if self.description is None:
            data.pop("description", None)
        if "default" not in self.model_fields_set:
            data.pop("default", None)
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode == "validation":
            arrow = {"type": "string", "description": "in the arrow form: `list[str]`"}
            schema["properties"]["type"] = {"anyOf": [schema["properties"]["type"], arrow]}
        return schema

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return "default" not in self.model_fields_set and not takes_null(self.type)

    def json_schema(self) -> dict[str, Any]:
        """This field as a property of a JSON Schema object."""
        schema = json_schema(self.type)
        if self.description is not None:
            schema["description"] = self.description
        if not self.required:
            schema["default"] = self.default
        return schema
