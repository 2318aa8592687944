"""The prompt adapters `chat` and `json`."""

from __future__ import annotations

from typing import Final

import dspy

from adapters.native.prompts.guards import Guarded
from adapters.native.prompts.readings import by_elements, by_object, by_sections


class Json(Guarded, dspy.JSONAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.JSONAdapter`, which accepts any text around the object with the outputs."""

    readings = (by_object, by_sections)


class AskedAgainAsJson(Guarded):
    """A base for subclasses of `dspy.ChatAdapter`: what cannot be parsed is asked for once more, by `Json`."""

    def _make_json_adapter_fallback(self) -> Json:
        return Json()


class Chat(AskedAgainAsJson, dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.ChatAdapter`. An answer without sections may also be a JSON object, or XML elements, with the outputs."""

    readings = (by_sections, by_object, by_elements)


CHAT: Final = Chat()
