"""Reads a cell of text (CSV, `--input NAME=VALUE`, Excel) as a value, by one rule for each type.


| type | a cell is |
|---|---|
| text | itself, spaces and all; one of `enum`, a `const` and a `format` as well without the spaces around it |
| whole number | digits, with a sign or not; `3.0` too |
| number | digits, with a sign, a point and an exponent or not |
| true or false | `true` and `false` in any case |
| list, tuple, set, map, object | JSON |
| any JSON value | JSON, else itself |
| optional | empty and `null` are null; else as its type |
| one of several types | as the first of them that it fits, where text comes last |

An empty cell is no value, so the default applies, or the value is missing; for text without a format, it is the empty
text. Spaces around
a value are ignored, except for text. An ambiguous cell (`1_000`, `1,234`, `1e3` for a whole number, digits of other
scripts, NaN, a key that comes twice) stays text, which validation then reports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from dspex.json_text import NotJson, read_json
from dspex.signatures.annotations import annotation
from dspex.signatures.scalar_types import BooleanType, ConstType, EnumType, IntegerType, NumberType, StringType
from dspex.signatures.types import FieldType, NullType, OptionalType, UnionType, resolved

NO_VALUE: Final = object()
"""The value of an empty cell of a type other than text."""

_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_cell(field_type: FieldType, text: str) -> Any:
    """Convert text to a value of a type, or to `NO_VALUE`. Returns invalid text unchanged, for validation to report."""
    field_type = resolved(field_type)
    if isinstance(field_type, StringType) and field_type.format is None:
        return _member(field_type.enum, text) if field_type.enum else text
    stripped = text.strip()
    if not stripped:
        return NO_VALUE
    match field_type:
        case StringType():
            return stripped
        case ConstType(const=value):
            return _scalar((value,), stripped, text)
        case OptionalType(anyOf=(inner, _)):
            return None if stripped == "null" else read_cell(inner, text)
        case UnionType(anyOf=choices):
            return _first_fitting(choices, stripped, text)
        case BooleanType():
            return {"true": True, "false": False}.get(stripped.lower(), text)
        case IntegerType():
            return _whole_number(stripped, text)
        case NumberType():
            return float(stripped) if _NUMBER.fullmatch(stripped) else text
        case EnumType(enum=members):
            return _scalar(members, stripped, text)
        case _:
            try:
                return read_json(text)
            except NotJson:
                return text


def _first_fitting(choices: Sequence[FieldType | NullType], stripped: str, text: str) -> Any:
    for choice in sorted(choices, key=_takes_any_text):
        if isinstance(choice, NullType):
            if stripped == "null":
                return None
            continue
        value = read_cell(choice, text)
        try:
            TypeAdapter(annotation(choice)).validate_python(value)
        except ValidationError:
            continue
        return value
    return text


def _takes_any_text(choice: FieldType | NullType) -> bool:
    choice = choice if isinstance(choice, NullType) else resolved(choice)
    return isinstance(choice, StringType) and not choice.enum


def whole(field_type: FieldType, value: Any) -> Any:
    """Convert 3.0 to 3 for a whole number, like JSON Schema (https://json-schema.org/draft/2020-12, 6.1.1)."""
    if not isinstance(value, float) or not value.is_integer():
        return value
    field_type = resolved(field_type)
    while isinstance(field_type, OptionalType):
        field_type = resolved(field_type.anyOf[0])
    return int(value) if isinstance(field_type, IntegerType) else value


def _whole_number(stripped: str, text: str) -> Any:
    found = _WHOLE.fullmatch(stripped)
    try:
        return int(found[1]) if found else text
    except ValueError:  # more digits than Python parses
        return text


def _scalar(members: tuple[Any, ...], stripped: str, text: str) -> Any:
    """One of the values of an enum of texts, whole numbers, true and false; texts take precedence."""
    if stripped in members:
        return stripped
    for field_type in (IntegerType(), BooleanType()):
        value = read_cell(field_type, stripped)
        if any(value == member and type(value) is type(member) for member in members):
            return value
    return text


def _member(members: tuple[str, ...], text: str) -> str:
    return text.strip() if text not in members and text.strip() in members else text
