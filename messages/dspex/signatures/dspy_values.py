"""Objects of DSPy as values of inputs: `dspy.Image`, `Audio`, `File` and `History`. Does not import DSPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dspex.errors import InvalidInput, Problem


def plain_values(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Inputs in which objects of DSPy are values of a message, also those in lists and in turns.

    Raises:
        InvalidInput: an object does not hold its body, but the id of a file at a provider.
    """
    return {name: _plain(value, name) for name, value in values.items()}


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, list | tuple):
        if not any(_called(item) for item in value):
            return value
        return [_plain(item, f"{path}.{number}") for number, item in enumerate(value)]
    match _called(value):
        case "Image":
            return value.url
        case "Audio":
            return f"data:audio/{value.audio_format};base64,{value.data}"
        case "File":
            return _file(value, path)
        case "History":
            turns = enumerate(value.messages)
            return {
                "messages": [
                    {name: _plain(item, f"{path}.messages.{number}.{name}") for name, item in turn.items()}
                    for number, turn in turns
                ]
            }
        case _:
            return value


def _file(file: Any, path: str) -> str:
    data = file.file_data
    if file.file_id is not None or not isinstance(data, str):
        text = "is the id of a file at a provider, or holds no body: use dspy.File.from_path, or a blob"
        raise InvalidInput([Problem(path, text)])
    named = f";name={quote(file.filename, safe='')}" if file.filename else ""
    return data.replace(";base64,", f"{named};base64,", 1)


def _called(value: object) -> str | None:
    """The name of the class of DSPy that an object is of."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return None
    for base in kind.__mro__:
        if base.__module__.startswith("dspy.adapters.types.") and base.__name__ in _NAMES:
            return base.__name__
    return None


_NAMES = frozenset({"Image", "Audio", "File", "History"})
