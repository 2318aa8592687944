"""Parses the text that an LM wrote for an output into its value. It accepts unambiguous text only, and never guesses.

It accepts JSON, also with trailing commas, comments and line breaks in its texts, in a code fence, or with text around
it; and Python literals, as the prompt asks for "a valid Python list[str]". DSPy uses json-repair, which also closes
unfinished values, takes the last of two equal keys, and inserts commas where it guesses them (json-repair 0.64, strict
or not).
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection, Iterator
from enum import EnumMeta
from types import NoneType, UnionType
from typing import Any, Final, Literal, Self, Union, get_args, get_origin

import dspy
from dspy.adapters.utils import find_enum_member, parse_value
from pydantic import TypeAdapter

from adapters.native.answers.sections import Unclear, check

MAX_DEPTH: Final = 64
"""The deepest nesting of brackets. No type of a signature is as deep, and Python's parsers allow more."""

MAX_LITERAL: Final = 100_000
"""The longest Python literal in characters, as its parser takes about a hundred bytes for each."""

_SCALARS: Final[dict[Any, TypeAdapter[Any]]] = {kind: TypeAdapter(kind) for kind in (int, float, bool)}
"""Made once, as making one takes as long as everything else about a value."""

_TEXT_OR_GLITCH = re.compile(r'"(?:[^"\\]|\\.)*+"|//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/|,(?=\s*[}\]])', re.DOTALL)
_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{}\]]', re.DOTALL)
_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(?P<body>.*?)\n[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_FENCED = re.compile(r"\A\s*(`{3,}|~{3,})[^\n`]*\n(?P<body>.*?)\n?[ \t]*\1\s*\Z", re.DOTALL)


def value_of(text: str, annotation: Any, name: str) -> Any:
    """Parse a text into a value of a type, for the output with this name.

    Raises:
        ValueError: the text gives no such value. pydantic's errors are subclasses.
        Unclear: the text is ambiguous, or the value contains a part of the prompt's format.
    """
    check(text, name)
    if annotation is str:
        return text
    if isinstance(annotation, EnumMeta):
        known: Any = annotation.__members__
        try:
            return annotation(_one_of(text, [member.value for member in known.values()]))
        except ValueError:
            return find_enum_member(annotation, fenced(text).strip())
    origin = get_origin(annotation)
    if origin is Literal:
        return _one_of(text, get_args(annotation))
    adapter = _SCALARS.get(annotation) or TypeAdapter(annotation)
    if isinstance(annotation, type) and issubclass(annotation, dspy.Type):
        return adapter.validate_python(text)
    if origin in (Union, UnionType) and str in get_args(annotation):
        value = NOTHING if NoneType in get_args(annotation) else read(fenced(text))  # as DSPy: adapters/utils.py
        return adapter.validate_python(text if value is NOTHING else value)
    value = read(fenced(text))
    if value is NOTHING:
        value = _within(text)
    if value is NOTHING:
        return adapter.validate_python(fenced(text).strip())
    check(value, name)
    return adapter.validate_python(value)


def plain_value(given: Any, annotation: Any, name: str) -> Any:
    """Convert a JSON value into a value of a type, for the output with this name.

    Raises:
        ValueError, Unclear: see `value_of`.
    """
    if isinstance(given, str):
        return value_of(given, annotation, name)
    check(given, name)
    if annotation is str:
        if given is None:
            raise ValueError(f"{name}: is null")
        return json.dumps(given, ensure_ascii=False) if isinstance(given, dict | list) else f"{given}"
    return parse_value(given, annotation)


def read(text: str) -> Any:
    """Parse a text that is one JSON value or Python literal; `NOTHING` if it is neither.

    Raises:
        Unclear: an object has a key twice, or the value is nested too deep.
    """
    stripped = text.strip()
    if not stripped:
        return NOTHING
    check_depth(stripped)
    for candidate in (stripped, _TEXT_OR_GLITCH.sub(_cleaned, stripped)):
        try:
            return _DECODER.decode(candidate)
        except (ValueError, RecursionError):
            continue
    return _literal(stripped)


def containers(text: str, brackets: str = "{[") -> Iterator[Any]:
    """The outermost JSON objects and arrays in a text.

    Raises:
        Unclear: see `read`.
    """
    position = 0
    starts = re.compile(f"[{re.escape(brackets)}]")
    while (found := starts.search(text, position)) is not None:
        end = _end_of(text, found.start())
        if end is None:
            return
        value = read(text[found.start() : end])
        if isinstance(value, dict | list):
            yield value
        position = end


def fenced(text: str) -> str:
    """The content of a code fence, if the text is one code fence; else the text."""
    found = _FENCED.match(text)
    return found["body"] if found else text


def check_depth(text: str) -> None:
    """Check, before it is parsed, that a text is not nested deeper than `MAX_DEPTH`.

    Raises:
        Unclear: it is nested deeper.
    """
    depth = 0
    for found in _TEXT_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Unclear(f"is nested deeper than {MAX_DEPTH}")
        elif found[0] in "]}":
            depth -= 1


class _Nothing:
    """No value."""


NOTHING: Final = _Nothing()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unclear("a key stands twice in one object")
    return found


class _Written(float):
    """A number of an answer. It is a float for all but pydantic, which makes a `Decimal` of its text: every digit."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return float.__format__(float(self), spec)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, strict=False, parse_float=_Written)


def _cleaned(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith('"') else ""


def _within(text: str) -> Any:
    """The only object or array in a text, in a code fence or among other words; `NOTHING` if there is none."""
    blocks = [found["body"] for found in _BLOCK.finditer(text)]
    values = [value for block in blocks if isinstance(value := read(block), dict | list)] or list(containers(text))
    different = [value for number, value in enumerate(values) if value not in values[:number]]
    if len(different) > 1:
        raise Unclear("there are several values")
    return different[0] if different else NOTHING


def _literal(text: str) -> Any:
    if len(text) > MAX_LITERAL or text[:1] not in "[{('\"TFN":
        return NOTHING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text, mode="eval")
            for node in ast.walk(tree):
                if isinstance(node, ast.Dict):
                    keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                    if len(set(keys)) != len(keys):
                        raise Unclear("a key stands twice in one object")
            value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return NOTHING
    return list(value) if isinstance(value, tuple | set) else value


def _end_of(text: str, start: int) -> int | None:
    depth = 0
    for found in _TEXT_OR_BRACKET.finditer(text, start):
        if found[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Unclear(f"is nested deeper than {MAX_DEPTH}")
        elif found[0] in "]}":
            depth -= 1
            if depth == 0:
                return found.end()
    return None


def _one_of(text: str, allowed: Collection[Any]) -> Any:
    """One of the values of a `Literal`, by the rules of DSPy (adapters/utils.py: `parse_value`)."""
    if text in allowed:
        return text
    given = fenced(text).strip()
    if given.startswith(("Literal[", "str[")) and given.endswith("]"):
        given = given[given.find("[") + 1 : -1]
    if len(given) > 1 and given[0] == given[-1] and given[0] in "\"'":
        given = given[1:-1]
    if given in allowed:
        return given
    for value in allowed:
        if not isinstance(value, str) and str(value) == given:
            return value
    value = read(given)
    for item in allowed:
        if item == value and isinstance(item, bool) is isinstance(value, bool):  # True is 1 in Python
            return item
    raise ValueError("is none of the values that it may have")
