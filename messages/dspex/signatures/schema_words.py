"""Words of JSON Schema, and what can be said of a schema by looking at it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Schema = dict[str, Any]

ABOUT = ("title", "description", "default", "examples", "attribute")
"""What is said of a place, and not of its values."""


def types_in(schema: Mapping[str, Any]) -> list[Any]:
    """The types that a schema names, one or several."""
    given = schema.get("type")
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]


def both_types(one: list[Any], other: list[Any]) -> list[Any]:
    """The types that are in both. A whole number is a number."""
    found = [each for each in one if each in other or (each == "integer" and "number" in other)]
    return found + [each for each in other if each == "integer" and "number" in one and each not in found]


def one_or_several(types: list[Any]) -> Any:
    """The value of `type`."""
    return types[0] if len(types) == 1 else types


def is_null(one: object) -> bool:
    """Whether null alone fits."""
    if not isinstance(one, Mapping):
        return False
    return one.get("type") == "null" or ("const" in one and one["const"] is None) or one.get("enum") == [None]


def is_ref(one: object) -> bool:
    """Whether it refers to another schema."""
    return isinstance(one, Mapping) and "$ref" in one


def or_null(one: Any) -> Any:
    """A type of ours, or null. What is said of its place stands around both; the name of a class stays with it."""
    if not isinstance(one, Mapping) or is_null(one) or any(map(is_null, one.get("anyOf") or ())):
        return one
    has_name = one.get("type") == "object" or "enum" in one
    around = {word: value for word, value in one.items() if word in ABOUT and not (word == "title" and has_name)}
    inner = {word: value for word, value in one.items() if word not in around}
    return {**around, "anyOf": [inner, {"type": "null"}]}


def are_apart(types: Iterable[Any]) -> bool:
    """Whether no value is of two of these types, as far as their names tell."""
    names = [str(one.get("type")) if isinstance(one, Mapping) else "None" for one in types]
    return "None" not in names and len(set(names)) == len(names) and not {"integer", "number"} <= set(names)


def whole(value: Any) -> Any:
    """A number without the `.0`, which makes no difference in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_number(value: object) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_of(value: Any, names: Iterable[Any]) -> bool:
    """Whether a JSON value is of one of these types."""
    value = whole(value)
    kinds: dict[Any, Any] = {
        "string": str,
        "boolean": bool,
        "null": type(None),
        "object": Mapping,
        "array": list | tuple,
    }
    for name in names:
        if name in ("integer", "number") and is_number(value) and (name == "number" or isinstance(value, int)):
            return True
        if isinstance(name, str) and name in kinds and isinstance(value, kinds[name]):
            return True
    return False
