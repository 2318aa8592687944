"""A field of a signature: its name, its type, and whether a value must be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dspex.errors import InvalidSignature
from dspex.model import Frozen
from dspex.signatures.arrow import parse_type
from dspex.signatures.definitions import define
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

DefinitionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
"""As pydantic writes it, whatever the name of the class is: it needs no escapes in a reference."""


class SignatureField(Frozen):
    """One input or output. `type` may be given as data or in the arrow form (`"list[str]"`).

    An input with a default, or of an optional type, may be left out. `$defs` are types with names, to which the type
    and they themselves refer; those that nothing refers to are left out. They may stand in the type as well, as in a
    JSON Schema of pydantic's. The name is what the LM is told of an object or an enum without a title.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)
    type: FieldType
    defs: dict[DefinitionName, FieldType] | None = Field(
        default=None,
        alias="$defs",
    )
    description: str | None = Field(default=None, max_length=2_000)
    default: JsonValue = None

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_NAMES:
            raise ValueError(f"'{name}' is a reserved name: choose another")
        return name

    @model_validator(mode="before")
    @classmethod
    def _with_definitions(cls, value: Any) -> Any:
        """Take `$defs` out of the type, and give those that are classes their names."""
        if not isinstance(value, Mapping):
            return value
        data = dict(value)
        if isinstance(data.get("type"), Mapping) and "$defs" in data["type"]:
            if data.get("$defs"):
                raise ValueError("$defs are given twice: in the field and in its type")
            data["type"] = dict(data["type"])
            data["$defs"] = data["type"].pop("$defs")
        if isinstance(given := data.get("$defs"), Mapping):
            data["$defs"] = {name: _called(name, one) for name, one in given.items()}
        return data

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

    @model_validator(mode="after")
    def _define(self) -> Self:
        if depth(self.type) > MAX_DEPTH:
            raise ValueError(f"type: types nest deeper than {MAX_DEPTH}")
        data = self.model_dump(mode="json", include={"defs"})["$defs"] if self.defs else {}
        used = define(self.type, self.defs or {}, data)
        object.__setattr__(self, "defs", used or None)  # frozen: nobody has seen it yet
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        for omitted in ("description", "$defs"):
            if data.get(omitted) is None:
                data.pop(omitted, None)
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

    def json_schema(self, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """This field as a property of a JSON Schema object. What it refers to is in `definitions`.

        Args:
            names: other names of the definitions.
        """
        schema = json_schema(self.type, names)
        if self.description is not None:
            schema["description"] = self.description
        if not self.required:
            schema["default"] = self.default
        return schema

    def definitions(self, names: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
        """The `$defs` of `json_schema`, by their own names."""
        return {name: json_schema(one, names) for name, one in (self.defs or {}).items()}


def _called(name: object, given: Any) -> Any:
    """A definition with its name as its title, if it may be a class and says no other."""
    is_class = isinstance(given, Mapping) and ("properties" in given or "enum" in given)
    return {"title": name} | dict(given) if is_class and given.get("title") is None else given
