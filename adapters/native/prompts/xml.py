"""The prompt adapter `xml`: each field is an element, and what has parts is nested elements."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, get_origin
from xml.etree import ElementTree as ET  # DOCTYPEs, and so entities, are not read: see `_parsed`

import dspy
import pydantic
from dspy.adapters.utils import parse_value
from pydantic import TypeAdapter

from adapters.native.answers.sections import Unclear, check, without_drafts
from adapters.native.insides import has_nested_elements, value_of_elements
from adapters.native.prompts.chat import AskedAgainAsJson
from adapters.native.prompts.readings import by_elements, by_object, by_sections

MAX_DEPTH: Final = 64
"""The deepest nesting of elements. DSPy's conversion calls itself for each."""

_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d+|#x[\da-fA-F]+);")


def _by_nested_elements(signature: Any, completion: str) -> Mapping[str, Any]:
    """The outputs in elements with their names: all elements of a list, the last one of anything else."""
    fields = signature.output_fields
    text = without_drafts(completion, fields)
    if "<" not in text:
        return {}
    found: dict[str, list[str]] = {}
    for name, inside in _outermost(text, fields):
        found.setdefault(name, []).append(inside)
    return {name: _value(name, inside, fields[name].annotation) for name, inside in found.items()}


def _outermost(text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """The name and the content of each element with one of these names that is in no other such element.

    Raises:
        Unclear: an element is not closed.
    """
    tags = re.compile(rf"<(?P<closes>/?)(?P<name>{'|'.join(map(re.escape, names))})\s*(?P<empty>/?)>")
    name, depth, begins = "", 0, 0
    for tag in tags.finditer(text):
        if depth == 0:
            if tag["closes"]:
                continue
            name, begins = tag["name"], tag.end()
            if tag["empty"]:
                yield name, ""
            else:
                depth = 1
        elif tag["name"] == name and not tag["empty"]:
            depth += -1 if tag["closes"] else 1
            if depth == 0:
                yield name, text[begins : tag.start()]
    if depth:
        raise Unclear(f"{name}: its element is not closed")


def _value(name: str, inside: list[str], annotation: Any) -> Any:
    """The value in the elements of one output; a text where it is to be parsed by its type.

    Raises:
        ValueError: it gives no such value.
        Unclear: a text that is no XML has entities, too, so that it is not known what they stand for.
    """
    if get_origin(annotation) is not list:
        inside = inside[-1:]
    elements = [_parsed(name, text) for text in inside]
    if any(element is None for element in elements):
        if len(inside) > 1 or _ENTITY.search(inside[0]):
            raise Unclear(f"{name}: its element is not well-formed")
        return inside[0].strip()
    if annotation is str and not list(elements[0]):
        return (elements[0].text or "").strip()
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    schema = adapter.json_schema(by_alias=False)
    failure: ValueError = ValueError(f"{name}: has no value")
    for candidate in (schema, *schema.get("anyOf", ())):
        try:
            value = value_of_elements(elements, candidate, schema.get("$defs", {}))
            if isinstance(value, str):
                return value
            check(value, name)
            try:
                return parse_value(value, annotation)
            except pydantic.ValidationError:
                return adapter.validate_python(value, by_name=True)
        except ValueError as error:
            failure = error
    raise failure


def _parsed(name: str, text: str) -> Any:
    """The element of an output with this content; None if that is not well-formed.

    Inside an element, XML allows no DOCTYPE: there are no entities but XML's own.

    Raises:
        Unclear: it is nested too deep.
    """
    try:
        root = ET.fromstring(f"<{name}>{text}</{name}>")  # noqa: S314
    except ET.ParseError:
        return None
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        level = [child for element in level for child in element]
        if not level:
            return root
    raise Unclear(f"{name}: is nested deeper than {MAX_DEPTH}")


class Xml(AskedAgainAsJson, dspy.XMLAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.XMLAdapter`. An answer may have text around the elements, and texts in them that are no XML."""

    # Before 3.3, what has parts is JSON in an element.
    readings = (
        (_by_nested_elements if has_nested_elements() else by_elements),
        by_object,
        by_sections,
    )
