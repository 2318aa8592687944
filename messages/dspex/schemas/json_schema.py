"""JSON Schemas (2020-12) of the messages and of the answers, generated from their models.

Commands and queries are closed: a worker refuses a field that it does not know, for what is misspelt must not run as
something else. Events and answers are open: whoever reads them ignores what it does not know, so that they can grow.
In these, error codes are an open set too (`x-extensible-enum`): take one that you do not know for `permanent`.

What a schema cannot say (fields that exclude each other, dates in order) the worker says when it refuses a message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from dspex.contract.commands import Command
from dspex.contract.envelope import envelope_of
from dspex.contract.events import EVENTS, Event
from dspex.contract.requests import REQUESTS
from dspex.contract.status import ErrorCode
from dspex.signatures.types import DIALECT

Schema = dict[str, Any]

MESSAGES: Mapping[str, type[Command | Event]] = MappingProxyType({**REQUESTS, **EVENTS})
"""Every message: what is asked of DSPex, and what it tells."""


def _name(model: type[BaseModel]) -> str:
    return model.__name__.replace("[", "Of").replace("]", "")


ANSWERS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {_name(asked.answer): asked.answer for asked in REQUESTS.values()}
)
"""What commands and queries are answered with (`answer` of `dspex.reply.v1`), by name: `PageOfProgramView`."""


def answer_name(type_: str) -> str:
    """The name of what a command or a query of this type is answered with."""
    return _name(REQUESTS[type_].answer)


def message_schema(type_: str) -> Schema:
    """The schema of a whole message, envelope and data.

    Raises:
        KeyError: no message has this type.
    """
    data = MESSAGES[type_]
    schema = _generated(envelope_of(data), "validation" if type_ in REQUESTS else "serialization")
    # Not the name of its data: generators make one class of each title, and anonymous ones where two are the same.
    schema |= {"title": f"{data.__name__}Message", "description": description(data)}
    schema["properties"]["type"] = {"const": type_}
    return _in_order(schema)


def description(model: type[BaseModel]) -> str:
    """What a model's docstring says."""
    return inspect.cleandoc(model.__doc__ or "")


def answer_schema(name: str) -> Schema:
    """The schema of an answer.

    Raises:
        KeyError: no answer has this name.
    """
    return _in_order(_generated(ANSWERS[name], "serialization") | {"title": name})


def _generated(model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
    schema = model.model_json_schema(mode=mode, schema_generator=_Generator)
    return _named(_mapped(schema, _asked if mode == "validation" else _told))


def _named(schema: Schema) -> Schema:
    """With the forms of a definition that have titles as definitions: generators number what has no name."""
    definitions: Schema = schema.get("$defs", {})
    for definition in list(definitions.values()):
        for number, form in enumerate(definition.get("anyOf", ())):
            if "title" in form:
                definitions[form["title"]] = form
                definition["anyOf"][number] = {"$ref": f"#/$defs/{form['title']}"}
    return schema


class _Generator(GenerateJsonSchema):
    """Without titles of fields, which repeat their names; what a serializer leaves out is optional as it is."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        return None if schema["type"] == "function-wrap" else super().ser_schema(schema)


def _asked(schema: Schema) -> Schema:
    """Which model reads a value is told by its `type`, so that must be there; more than one schema may fit."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    schema.pop("discriminator", None)
    if "patternProperties" in schema:
        schema.setdefault("additionalProperties", False)  # names of a map, which pydantic checks all
    told = [name for name in ("specversion", "type") if "const" in schema.get("properties", {}).get(name, {})]
    if told:
        schema["required"] = list(dict.fromkeys([*told, *schema.get("required", ())]))
    return schema


def _told(schema: Schema) -> Schema:
    schema = _asked(schema)
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    if schema.get("title") == ErrorCode.__name__:
        schema["x-extensible-enum"] = schema.pop("enum")
    return schema


_BY_NAME = ("properties", "patternProperties", "$defs")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "propertyNames")


def _mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A schema with every schema in it changed. The names of properties may be those of keywords."""
    new = dict(schema)
    for key in _BY_NAME:
        if key in new:
            new[key] = {name: _mapped(inner, change) for name, inner in new[key].items()}
    for key in _LISTED:
        if key in new:
            new[key] = [_mapped(inner, change) for inner in new[key]]
    for key in _SINGLE:
        if isinstance(new.get(key), dict):
            new[key] = _mapped(new[key], change)
    return change(new)


_ORDER = ("$schema", "title", "description", "type", "properties", "required")


def _in_order(schema: Schema) -> Schema:
    """What people look for first, first."""
    schema = {"$schema": DIALECT} | schema
    last = [key for key in schema if key not in (*_ORDER, "$defs")]
    return {key: schema[key] for key in (*_ORDER, *last, "$defs") if key in schema}
