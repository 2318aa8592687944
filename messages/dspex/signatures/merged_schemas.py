"""One JSON Schema of several that hold together, as in `allOf`: what each of them says, as far as one can say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dspex.signatures.schema_words import ABOUT, Schema, both_types, is_number, one_or_several, types_in

TEXTS = (*ABOUT, "$comment", "docstring")
"""What says nothing of values: of two, the outer one counts."""

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


_RULES = ("if", "then", "else", "not", "dependentSchemas")
"""They are lost, once what they add to an object was looked at."""


class Contradiction(Exception):
    """No value fits two schemas that hold together."""


Lose = Callable[[str, str], None]
"""Tells that one of two words at a path is lost."""


def merged(one: Mapping[str, Any], other: Mapping[str, Any], path: str, lose: Lose) -> Schema:
    """One schema of two. Of what one schema cannot say of both, the first one counts, and the second is lost.

    Raises:
        Contradiction: no value fits both.
    """
    new = dict(one)
    for word, value in other.items():
        if word not in new:
            new[word] = value
        elif word in _RULES:
            new[word] = {"allOf": [new[word], value]}
        elif new[word] != value and word not in TEXTS:
            new[word] = _of_both(word, new[word], value, path, lose)
    return new


def _of_both(word: str, one: Any, other: Any, path: str, lose: Lose) -> Any:
    match word:
        case "type":
            found = both_types(types_in({"type": one}), types_in({"type": other}))
            if not found:
                raise Contradiction(word)
            return one_or_several(found)
        case "const":
            raise Contradiction(word)
        case "enum" if isinstance(one, list) and isinstance(other, list):
            return [value for value in one if value in other]
        case "required" if isinstance(one, list) and isinstance(other, list):
            return [*one, *(name for name in other if name not in one)]
        case "properties" if isinstance(one, Mapping) and isinstance(other, Mapping):
            new = dict(one)
            for name, schema in other.items():
                new[name] = together(new[name], schema) if name in new else schema
            return new
        case "items" | "additionalProperties" if isinstance(one, Mapping) and isinstance(other, Mapping):
            return together(one, other)
        case "additionalProperties" if isinstance(one, bool) or isinstance(other, bool):
            if one is False or other is False:
                return False
            return other if one is True else one
        case _ if word in _LOWER + _UPPER and is_number(one) and is_number(other):
            return max(one, other) if word in _LOWER else min(one, other)
    lose(path, word)
    return one


def together(one: Any, other: Any) -> Any:
    """Two schemas of one place that hold together: they are merged when the place is read."""
    if other is True or other == {}:
        return one
    if one is True or one == {}:
        return other
    several = one["allOf"] if isinstance(one, Mapping) and list(one) == ["allOf"] else [one]
    return {"allOf": [*several, other]} if isinstance(several, list) else {"allOf": [one, other]}
