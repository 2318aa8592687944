"""How a run speaks with its LM: DSPy's two formats of a prompt, which take nothing in it as an order, and a reading of
answers of our own, in a time that grows with their length.
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
    """The text without DSPy's marker of an attachment, in the place of which DSPy would read a file or an address
    (dspy 3.4: adapters/_legacy_type_markers.py).

    What is put in its place begins and ends with what no marker has: so none can come about around it.
    """
    return text.replace(CUSTOM_TYPE_START_IDENTIFIER, f"({CUSTOM_TYPE_START_IDENTIFIER.strip('<>')})")


class Chat(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.ChatAdapter`, with `Json` where it asks once more.

    Where an answer has no section, a JSON object or XML elements with the outputs are taken as well.
    """

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `dspy.ChatAdapter`. Inputs, demos, answers of tools and hints: all come by here, as one text."""
        return neutral(super().format_user_message_content(*args, **kwargs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The outputs in an answer.

        Raises:
            AdapterParseError: they cannot be read from it, or in more than one way.
        """
        return _outputs(self, signature, completion, (_by_sections, _by_object, _by_elements))

    def _make_json_adapter_fallback(self) -> Json:
        return Json()


class Json(dspy.JSONAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.JSONAdapter`: one object with the outputs, whatever is around it."""

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
    """The outputs in the one object of the answer that has any."""
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
    """The outputs in XML elements of their names, the last of each; no attributes, none within another."""
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
