"""Reads one type of a JSON Schema as a type of ours: texts, numbers, lists, objects, and values that are listed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol, get_args

from dspex.signatures.formats import Format, check_pattern
from dspex.signatures.media import KINDS
from dspex.signatures.schema_words import ABOUT, Schema, is_number, is_of, or_null, types_in, whole

FORMATS = frozenset([*get_args(Format), *KINDS])
VALUES: Mapping[Any, type] = {"string": str, "boolean": bool, "integer": int}
KEPT: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "format", "pattern"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
    "object": ("docstring", "format", "properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
}
"""What a type of ours says."""

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_MAX_COUNT = 1_000_000
_MAX_LOOKED_AT = 10_000
_RULES = ("if", "then", "else", "dependentSchemas", "anyOf", "oneOf")
"""Beside `properties`, these restrict an object, or add to it."""


class Reader(Protocol):
    """What reads the schemas inside, and knows what is lost."""

    def read(self, schema: Any, path: str, level: int = 0) -> Any:
        """A type of ours."""

    def lose(self, path: str, word: str, why: str | None = None) -> None:
        """Tell that a word is lost. By default, because it is not checked, or not shown."""

    def kept(self, found: Schema, words: Iterable[str], path: str) -> Schema:
        """What is in `words`. All else is lost."""
        ...

    def refuse(self, path: str, why: str) -> NoReturn:
        """Refuse the schema."""
        ...


def of_type(found: Schema, path: str, level: int, reader: Reader) -> Any:
    """A schema that names one type, or none."""
    name = found.get("type")
    if name is None:
        name = "object" if "properties" in found else "array" if {"items", "prefixItems"} & found.keys() else None
        if name is None:
            return reader.kept(found, ABOUT, path)
        found["type"] = name
        reader.lose(path, "type", f"is missing: it is taken as {name}")
    match name:
        case "object":
            found = _object(found, path, level, reader)
        case "array":
            found = _array(found, path, level, reader)
        case "string":
            found = _string(found, path, reader)
        case "integer" | "number":
            found = _number(found, path, reader)
        case "boolean" | "null":
            pass
        case _:
            return found
    for word in _COUNTS:
        if word in found:
            found[word] = whole(found[word])
            if is_number(found[word]) and found[word] > _MAX_COUNT:
                reader.lose(path, word)
                del found[word]
    return reader.kept(found, ("type", *ABOUT, *KEPT[str(name)]), path)


def listed(found: Schema, path: str, reader: Reader) -> Any:
    """A schema with `enum` or `const`."""
    allowed = types_in(found)
    if "enum" not in found and isinstance(found["const"], str | int):
        if allowed and not is_of(found["const"], allowed):
            reader.refuse(path, "no value fits its schema")
        if "type" in found and found["type"] not in list(VALUES):
            del found["type"]
        return reader.kept(found, ("type", "const", *ABOUT), path)
    values = found.pop("enum", [found.get("const")])
    if not isinstance(values, list | tuple):
        reader.refuse(path, "enum needs a list of values")
    if "const" in found:
        const = found.pop("const")
        values = [const] if const in values else []
    fit = [whole(value) for value in values if not allowed or is_of(value, allowed)]
    some = list({_identity(value): value for value in fit if value is not None}.values())
    if not fit:
        reader.refuse(path, "no value fits its schema")
    if not some:
        return {"type": "null"}
    if len(some) != len(values):
        found.pop("names", None)
    if all(isinstance(value, str | int) for value in some):
        names = {_name_of(value) for value in some}
        if "type" in found and [found["type"]] != list(names):
            del found["type"]
        new = reader.kept({**found, "enum": some}, ("type", "enum", "names", "docstring", *ABOUT), path)
    else:
        reader.lose(path, "enum")
        found.pop("type", None)
        wide = {"type": "number"} if all(map(is_number, some)) else {}
        new = {**wide, **reader.kept(found, ABOUT, path)}
    return or_null(new) if None in fit else new


def _identity(value: Any) -> Any:
    return (type(value), value) if isinstance(value, str | int | float) else id(value)


def _name_of(value: object) -> str:
    return "string" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "integer"


def _string(found: Schema, path: str, reader: Reader) -> Schema:
    media = str(found.get("contentMediaType", ""))
    kind = media.partition("/")[0]
    if kind in ("image", "audio", "video"):
        way = "" if kind == "video" else f": use the format '{kind}'"
        reader.refuse(path, f"contentMediaType: it is {media[:100]}, and the LM would be shown text{way}")
    if "format" in found and not (isinstance(found["format"], str) and found["format"] in FORMATS):
        reader.lose(path, "format", f"'{str(found.pop('format'))[:100]}' is not checked")
    if isinstance(pattern := found.get("pattern"), str):
        try:
            check_pattern(pattern)
        except ValueError as error:
            reader.lose(path, "pattern", f"is not checked: {error}")
            del found["pattern"]
    return found


def _number(found: Schema, path: str, reader: Reader) -> Schema:
    bounds = (("minimum", "exclusiveMinimum", math.ceil, max), ("maximum", "exclusiveMaximum", math.floor, min))
    for bound, exclusive, _, _ in bounds:
        # In the drafts before 6, it says whether the other bound is exclusive.
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)
    if found["type"] == "number":
        return found
    for bound, exclusive, nearest, tighter in bounds:
        for word in (bound, exclusive):
            value = whole(found.get(word))
            if isinstance(value, float) and math.isfinite(value):  # for whole numbers, the nearest one says the same
                del found[word]
                whole_bound = found.get(bound)
                limit = nearest(value)
                found[bound] = tighter(limit, whole_bound) if isinstance(whole_bound, int) else limit
            elif value is not None:
                found[word] = value
    step = whole(found.get("multipleOf"))
    if isinstance(step, float):
        del found["multipleOf"]
        if not (0 < step < 1 and (1 / step).is_integer()):
            reader.lose(path, "multipleOf")
    elif step is not None:
        found["multipleOf"] = step
    return found


def _array(found: Schema, path: str, level: int, reader: Reader) -> Schema:
    if isinstance(found.get("items"), list | tuple):  # as in the drafts before 2020-12
        found["prefixItems"] = found.pop("items")
        if "additionalItems" in found:
            found["items"] = found.pop("additionalItems")
    if found.get("uniqueItems") is False:
        del found["uniqueItems"]
    if isinstance(first := found.get("prefixItems"), list | tuple) and first:
        return _tuple(found, list(first), path, level, reader)
    found.pop("prefixItems", None)
    if found.get("items") is False:
        found |= {"items": {}, "maxItems": 0}
    elif "items" in found:
        found["items"] = reader.read(found["items"], f"{path}[]", level + 1)
    elif found.keys() & {"minItems", "maxItems", "uniqueItems"}:
        found["items"] = {}
    return found


def _tuple(found: Schema, first: list[Any], path: str, level: int, reader: Reader) -> Schema:
    count = len(first)
    rest = found.pop("items", None)
    if rest is False and is_number(limit := found.get("maxItems", count)):
        found["maxItems"] = min(count, limit)
    if found.get("minItems") == found.get("maxItems") == count:
        found |= {"minItems": count, "maxItems": count}
        found["prefixItems"] = [reader.read(one, f"{path}[{number}]", level + 1) for number, one in enumerate(first)]
        if "uniqueItems" in found:
            reader.lose(path, "uniqueItems")
            del found["uniqueItems"]
        return found
    reader.lose(path, "prefixItems", "is not checked, as there may be fewer or more items")
    del found["prefixItems"]
    return {**found, "items": {}}


def _object(found: Schema, path: str, level: int, reader: Reader) -> Schema:
    required = found.get("required")
    if isinstance(required, list | tuple) and all(isinstance(name, str) for name in required):
        found["required"] = required = list(dict.fromkeys(required))
    else:
        required = []
    properties = found.get("properties")
    if "format" in found and (found["format"] != "history" or properties):
        reader.lose(path, "format", f"'{str(found.pop('format'))[:100]}' is not checked")
    if not isinstance(properties, Mapping):
        return found if properties is not None else _map(found, path, level, reader)
    if not properties:
        return _map(found, path, level, reader)
    for word in _RULES:
        if word in found and (name := _adds(found[word], properties)) is not None:
            why = f"may add '{name}' to the object, whose other keys are refused: make it one of the properties"
            reader.refuse(path, f"{word} {why}")
    found["properties"] = {
        key: reader.read(one, f"{path}.{str(key)[:128]}", level + 1) for key, one in properties.items()
    }
    for name in required:
        found["properties"].setdefault(name, {})
    for word in ("patternProperties", "additionalProperties", "unevaluatedProperties"):
        if word in found and found[word] is not False and found.pop(word) is not None:
            reader.lose(path, word, "is not kept: keys that are no properties are refused")
    found.pop("unevaluatedProperties", None)
    return found


def _map(found: Schema, path: str, level: int, reader: Reader) -> Schema:
    found.pop("properties", None)
    if not found.get("required", True):
        del found["required"]
    elif "required" in found:
        reader.lose(path, "required")
        del found["required"]
    patterns = found.pop("patternProperties", None)
    others = found.get("additionalProperties")
    if isinstance(patterns, Mapping) and patterns:
        found.pop("additionalProperties", None)
        if len(patterns) == 1 and others in (None, False):
            reader.lose(path, "patternProperties", "is not checked: the value of any key is of its type")
            (inner,) = patterns.values()
            found["additionalProperties"] = reader.read(inner, f"{path}{{}}", level + 1)
        else:
            reader.lose(path, "patternProperties")
    elif isinstance(others, Mapping):
        found["additionalProperties"] = reader.read(others, f"{path}{{}}", level + 1)
    elif others is False:
        reader.lose(path, "additionalProperties", "is not checked: there may be any keys")
        del found["additionalProperties"]
    return found


def _adds(rule: Any, properties: Mapping[str, Any]) -> str | None:
    """A property that a rule names and the object does not have, or a type that it refers to.

    `dependentSchemas` has rules by names; all others are one rule, or a list.
    """
    rest = [rule]
    for _ in range(_MAX_LOOKED_AT):
        if not rest:
            return None
        one = rest.pop()
        if isinstance(one, list | tuple):
            rest += one
        elif isinstance(one, Mapping):
            if isinstance(one.get("$ref"), str):
                return str(one["$ref"])[:200]
            named = one.get("properties")
            for name in named if isinstance(named, Mapping) else ():
                if name not in properties:
                    return str(name)[:200]
            rest += [inner for word, inner in one.items() if word != "properties"]
    return "more than is looked at"
