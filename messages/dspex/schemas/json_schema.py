"""Generates the JSON Schemas (2020-12) of messages and answers from their models.

Commands and queries are closed: a worker refuses an unknown field, as it may be a misspelt one. Events and answers are
open: readers ignore unknown fields, so that events and answers can grow. Their error codes are an open set, too
(`x-extensible-enum`): treat an unknown code like `permanent`. Some rules do not fit into a schema, such as fields that
exclude each other; a worker that refuses a message for one of them names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from dspex.contract.commands import Command
from dspex.contract.deployment import Deployment
from dspex.contract.envelope import envelope_of
from dspex.contract.events import EVENTS, Event
from dspex.contract.requests import REQUESTS
from dspex.contract.status import ErrorCode
from dspex.signatures.types import DIALECT

Schema = dict[str, Any]

MESSAGES: Mapping[str, type[Command | Event]] = MappingProxyType({**REQUESTS, **EVENTS})
"""Every message, to and from DSPex."""


def _name(model: type[BaseModel]) -> str:
    return model.__name__.replace("[", "Of").replace("]", "")


ANSWERS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {_name(asked.answer): asked.answer for asked in REQUESTS.values()}
)
"""The answers to commands and queries (`answer` of `dspex.reply.v1`), by name: `PageOfProgramView`."""


def answer_name(type_: str) -> str:
    """The name of the answer to a command or a query of this type."""
    return _name(REQUESTS[type_].answer)


def message_schema(type_: str) -> Schema:
    """The schema of a whole message, envelope and data.

    Raises:
        KeyError: no message has this type.
    """
    data = MESSAGES[type_]
    schema = _generated(envelope_of(data), "validation" if type_ in REQUESTS else "serialization")
    # Not the name of its data: code generators make one class per title, and anonymous ones for equal titles.
    schema |= {"title": f"{data.__name__}Message", "description": description(data)}
    schema["properties"]["type"] = {"const": type_}
    return _in_order(schema)


def description(model: type[BaseModel]) -> str:
    """The description of a model: its docstring."""
    return inspect.cleandoc(model.__doc__ or "")


def answer_schema(name: str) -> Schema:
    """The schema of an answer.

    Raises:
        KeyError: no answer has this name.
    """
    return _in_order(_generated(ANSWERS[name], "serialization") | {"title": name})


def deployment_schema() -> Schema:
    """The schema of a deployment's file, in which the signature and the state may be named by a text."""
    schema = _generated(Deployment, "validation")
    members = schema["properties"]
    members["signature"] = {
        "anyOf": [{"type": "string"}, members["signature"]],
        "description": "data, the arrow form, the path of a JSON file, or package.module:Class",
    }
    members["state"] = {
        "anyOf": [{"type": "string"}, members["state"]],
        "description": "what an optimizer found: data, or the path of a JSON file",
    }
    return _in_order(schema)


def _generated(model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
    schema = model.model_json_schema(mode=mode, schema_generator=_Generator)
    return _named(_mapped(schema, _asked if mode == "validation" else _told))


def _named(schema: Schema) -> Schema:
    """Make titled alternatives of a definition definitions of their own: code generators number nameless ones."""
    definitions: Schema = schema.get("$defs", {})
    for definition in list(definitions.values()):
        for named in (definition, *definition.get("properties", {}).values()):
            for number, form in enumerate(named.get("anyOf", ())):
                if "title" in form:
                    definitions[form["title"]] = form
                    named["anyOf"][number] = {"$ref": f"#/$defs/{form['title']}"}
    return schema


class _Generator(GenerateJsonSchema):
    """Omits titles of fields, which repeat their names, and ignores serializers, which only leave members out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        return None if schema["type"] == "function-wrap" else super().ser_schema(schema)


def _asked(schema: Schema) -> Schema:
    """Require `type`, by which a reader chooses the model, and allow a value to fit several schemas."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    schema.pop("discriminator", None)
    if "patternProperties" in schema:
        schema.setdefault("additionalProperties", False)  # pydantic checks every key of a map
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
    """A schema with `change` applied to every schema in it. A property may have the name of a keyword."""
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
    """The schema with the keywords that people look for first at the top."""
    schema = {"$schema": DIALECT} | schema
    last = [key for key in schema if key not in (*_ORDER, "$defs")]
    return {key: schema[key] for key in (*_ORDER, *last, "$defs") if key in schema}
