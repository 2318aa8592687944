"""The formats of prompts and answers: DSPy's two, made safe against markers in inputs, with our own parser.

The parser takes time linear in the length of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.adapters.utils import apply_output_field_defaults
from dspy.utils.exceptions import AdapterParseError

from adapters.native.answers.sections import Unclear, sections, without_drafts
from adapters.native.answers.values import containers, plain_value


def neutral(text: str) -> str:
    """Replace DSPy's marker of an attachment in a text. DSPy would load the file or URL in it.

    See adapters/_legacy_type_markers.py in dspy 3.4. The replacement begins and ends with characters that no marker
    contains, so that it cannot become part of another one.
    """
    return text.replace(CUSTOM_TYPE_START_IDENTIFIER, f"({CUSTOM_TYPE_START_IDENTIFIER.strip('<>')})")


class Chat(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.ChatAdapter`, with `Json` as the format for asking once more.

    An answer without sections may also be a JSON object, or XML elements, with the outputs.
    """

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `dspy.ChatAdapter`. Inputs, demos, results of tools and hints all pass here, as one text."""
        return neutral(super().format_user_message_content(*args, **kwargs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Parse the outputs in an answer.

        Raises:
            AdapterParseError: the answer lacks outputs, or is ambiguous.
        """
        return _outputs(self, signature, completion, (_by_sections, _by_object, _by_elements))

    def _make_json_adapter_fallback(self) -> Json:
        return Json()


class Json(dspy.JSONAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.JSONAdapter`, which accepts any text around the object with the outputs."""

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `Chat.format_user_message_content`."""
        return neutral(super().format_user_message_content(*args, **kwargs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """See `Chat.parse`."""
        return _outputs(self, signature, completion, (_by_object, _by_sections))


CHAT: Final = Chat()

Reading = Callable[[Any, str], Mapping[str, Any]]


def _outputs(adapter: Any, signature: Any, completion: str, readings: tuple[Reading, ...]) -> dict[str, Any]:
    def failure(reason: str) -> AdapterParseError:
        return AdapterParseError(
            adapter_name=type(adapter).__name__, signature=signature, lm_response=completion, message=reason
        )

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


def _by_sections(signature: Any, completion: str) -> Mapping[str, Any]:
    return sections(completion, signature.output_fields, signature.input_fields)


def _by_object(signature: Any, completion: str) -> Mapping[str, Any]:
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


def _by_elements(signature: Any, completion: str) -> Mapping[str, Any]:
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
