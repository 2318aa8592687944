"""How a run speaks with its LM: DSPy's two formats of a prompt, which take nothing in it as an order, and nothing in
an answer as a reason to parse for minutes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import dspy
import json_repair
from dspy.adapters.chat_adapter import field_header_pattern
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER
from dspy.utils.exceptions import AdapterParseError

MAX_STEPS: Final = 500_000
"""Characters that the reader of broken JSON may look at, a good half second. It goes back and forth, and its time grows
with the square of a text or worse (json_repair 0.64: 60 kB of `{x ` took 96 s). JSON itself takes linear time."""

MAX_BROKEN: Final = 100_000
"""Characters of JSON that is broken, and is to be mended. JSON itself may have any size."""

MAX_DEPTH: Final = 64
"""Brackets that may be open at once in what is read as JSON: no type of a signature is as deep."""

_BRACKETS: Final = re.compile(r"[][{}()]")
_CLOSING: Final = {"[": "]", "{": "}", "(": ")"}


def neutral(text: str) -> str:
    """The text without DSPy's marker of an attachment, in the place of which DSPy would read a file or an address
    (dspy 3.4: adapters/_legacy_type_markers.py).

    What is put in its place begins and ends with what no marker has: so none can come about around it.
    """
    return text.replace(CUSTOM_TYPE_START_IDENTIFIER, f"({CUSTOM_TYPE_START_IDENTIFIER.strip('<>')})")


class Chat(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.ChatAdapter`, with `Json` where it asks once more."""

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `dspy.ChatAdapter`. Inputs, demos, answers of tools and hints: all come by here, as one text."""
        return neutral(super().format_user_message_content(*args, **kwargs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """See `dspy.ChatAdapter`.

        Raises:
            AdapterParseError: it cannot be read.
        """
        fields = signature.output_fields
        for name, text in _sections(completion):
            if name in fields and fields[name].annotation is not str and not _is_affordable(text):
                raise _unreadable(self, signature, completion)
        return _parsed(self, super().parse, signature, completion)

    def _make_json_adapter_fallback(self) -> Json:
        return Json()


class Json(dspy.JSONAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`dspy.JSONAdapter`."""

    def format_user_message_content(self, *args: Any, **kwargs: Any) -> str:
        """See `Chat.format_user_message_content`."""
        return neutral(super().format_user_message_content(*args, **kwargs))

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """See `Chat.parse`."""
        found = _object(completion)
        if found is None:
            raise _unreadable(self, signature, completion)
        return _parsed(self, super().parse, signature, found)


CHAT: Final = Chat()


def _sections(completion: str) -> list[tuple[str | None, str]]:
    """The parts of an answer by their headers, as `dspy.ChatAdapter.parse` takes it apart."""
    sections: list[tuple[str | None, list[str]]] = [(None, [])]
    for line in completion.splitlines():
        header = field_header_pattern.match(line.strip())
        if header:
            sections.append((header[1], [line[header.end() :]]))
        else:
            sections[-1][1].append(line)
    return [(name, "\n".join(lines).strip()) for name, lines in sections]


class _TooMuchWork(ValueError):
    """The text is not worth it."""


class _Metered(str):
    """A text that `json_repair` reads as it reads any, and not without end."""

    __slots__ = ("steps",)

    def __getitem__(self, index: Any) -> str:
        self.steps: int = getattr(self, "steps", 0) + 1
        if self.steps > MAX_STEPS:
            raise _TooMuchWork
        return super().__getitem__(index)


def _object(completion: str) -> str | None:
    """The object in an answer that is to be one, as JSON: also where it is broken, or has words around it."""
    start, end = completion.find("{"), completion.rfind("}")
    for text in (completion, completion[start : end + 1]):
        try:
            found = _mended(text)
        except (ValueError, RecursionError):
            return None
        if isinstance(found, dict):
            return json.dumps(found)
    return None


def _is_affordable(text: str) -> bool:
    """Whether DSPy may read a text as JSON: it does what `_mended` does, without its bounds."""
    try:
        _mended(text)
    except (ValueError, RecursionError):
        return False
    return True


def _mended(text: str) -> Any:
    """What a text is as JSON, as near as can be; an empty text where it is nothing of the kind.

    Raises:
        ValueError, RecursionError: that would take too long.
    """
    if _depth(text) > MAX_DEPTH:
        raise _TooMuchWork
    try:
        return json.loads(text)
    except ValueError:
        if len(text) > MAX_BROKEN:
            raise _TooMuchWork from None
    return json_repair.loads(_Metered(text), skip_json_loads=True)


def _depth(text: str) -> int:
    """How many brackets are open at once at most, those in strings too: whether it is JSON is not known yet."""
    deepest = 0
    waiting: list[str] = []
    for bracket in _BRACKETS.findall(text):
        if bracket in _CLOSING:
            waiting.append(_CLOSING[bracket])
            deepest = max(deepest, len(waiting))
        elif waiting and waiting[-1] == bracket:
            waiting.pop()
    return deepest


def _parsed(adapter: Any, parse: Any, signature: Any, completion: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse(signature, completion)
    except (ValueError, RecursionError, MemoryError):
        # Numbers of 5,000 digits, 10,000 minuses one after the other: `ast.literal_eval` calls that a lack of memory.
        found = {}
    if not found:
        raise _unreadable(adapter, signature, completion)
    return found


def _unreadable(adapter: Any, signature: Any, completion: str) -> AdapterParseError:
    return AdapterParseError(type(adapter).__name__, signature, completion)
