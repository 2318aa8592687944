"""Reads the outputs of a signature from an answer: from its sections, from an object, or from elements.

The time is linear in the length of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dspy.utils.exceptions import AdapterParseError

from adapters.native.answers.sections import Unclear, sections, without_drafts
from adapters.native.answers.values import containers, plain_value
from adapters.native.by_version import apply_output_field_defaults

Reading = Callable[[Any, str], Mapping[str, Any]]
"""Takes a signature and an answer; gives the outputs that it finds, or nothing. A text is parsed by its output's type.

Raises:
    Unclear: the answer is ambiguous.
"""


def outputs_of(adapter: str, signature: Any, completion: str, readings: tuple[Reading, ...]) -> dict[str, Any]:
    """The outputs in an answer, by the first reading that finds some.

    Raises:
        AdapterParseError: the answer lacks outputs, or is ambiguous. `adapter` is named in it.
    """

    def failure(reason: str) -> AdapterParseError:
        return AdapterParseError(adapter_name=adapter, signature=signature, lm_response=completion, message=reason)

    try:
        found = next((found for reading in readings if (found := reading(signature, completion))), {})
        values = {
            name: plain_value(given, signature.output_fields[name].annotation, name) for name, given in found.items()
        }
    except (Unclear, ValueError, RecursionError, MemoryError) as error:
        raise failure(str(error)[:500]) from error
    values = apply_output_field_defaults(signature, values)
    missing = signature.output_fields.keys() - values.keys()
    if missing:
        raise failure(f"no value for {', '.join(sorted(missing))}")
    return {name: values[name] for name in signature.output_fields}


def by_sections(signature: Any, completion: str) -> Mapping[str, Any]:
    """The outputs in the sections of `dspy.ChatAdapter`."""
    return sections(completion, signature.output_fields, signature.input_fields)


def by_object(signature: Any, completion: str) -> Mapping[str, Any]:
    """The outputs in the only object of the answer that has some."""
    text = without_drafts(completion)
    if "{" not in text:
        return {}
    found = [
        {name: value for name, value in item.items() if name in signature.output_fields}
        for item in containers(text, "{")
    ]
    different = [item for number, item in enumerate(found) if item and item not in found[:number]]
    if len(different) > 1:
        raise Unclear("there are several objects with outputs")
    return different[0] if different else {}


def by_elements(signature: Any, completion: str) -> Mapping[str, Any]:
    """The outputs in XML elements with their names: the last element of each; without attributes or nesting."""
    text = without_drafts(completion, signature.output_fields)
    if "</" not in text:
        return {}
    names = "|".join(re.escape(name) for name in signature.output_fields)
    found: dict[str, Any] = {}
    position = 0
    opening = re.compile(rf"<({names})\s*>")
    while (opened := opening.search(text, position)) is not None:
        end = text.find(f"</{opened[1]}>", opened.end())
        if end < 0:
            raise Unclear(f"{opened[1]}: its element is not closed")
        found[opened[1]] = text[opened.end() : end].strip()
        position = end + len(opened[1]) + 3
    return found
