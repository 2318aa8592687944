"""Images, audio, files and turns as DSPy's objects, and as they stand in a prompt.

DSPy writes an object as a marker into the text of a message, and makes a content block of every marker that it finds
there (adapters/_legacy_type_markers.py in dspy 3.4), whoever wrote it. So markers in texts are replaced
(`adapters.native.prompts.guards`), and those of objects are written with a key that nobody else knows, and become
DSPy's own afterwards.

Only an object that holds its body is shown: DSPy, LiteLLM or the provider would load the address in another one, or
take an id for a file that somebody has uploaded with the operator's key. No object is made here by the functions of
DSPy that read files or addresses: `Image(url, download=True)`, `from_url`, `from_path`, `from_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any, Final, Optional
from urllib.parse import quote

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_END_IDENTIFIER, CUSTOM_TYPE_START_IDENTIFIER
from pydantic import BaseModel, model_serializer
from pydantic_core import from_json

from adapters.native.by_version import File
from adapters.port import AdapterError
from dspex import ErrorCode, Signature
from dspex.signatures.attachments import is_history, kind_of, mapped
from dspex.signatures.media import KINDS, Kind, Media, parse
from dspex.signatures.scalar_types import StringType
from dspex.signatures.types import ArrayType, FieldType, HistoryType, OptionalType

_KEY: Final = f"attachment-{token_hex(16)}-"
_CLASSES: Final[Mapping[Kind, Any]] = {"image": dspy.Image, "audio": dspy.Audio, "file": File}


_OBJECTS: Final = tuple(_CLASSES.values())
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def annotation_of(field_type: FieldType) -> Any:
    """The annotation of a field that has images, audio, files or turns; None for another one.

    Raises:
        AdapterError: `permanent`: an older DSPy has no such type.
    """
    match field_type:
        case StringType(format="image" | "audio" | "file" as kind):
            if not issubclass(_CLASSES[kind], dspy.Type):
                text = f"signature: DSPy {dspy.__version__} has no type for a {kind}: use a later one"
                raise AdapterError(ErrorCode.PERMANENT, text)
            return _CLASSES[kind]
        case HistoryType():
            return dspy.History
        case ArrayType(items=item):
            inner = annotation_of(item)
            return None if inner is None else list[inner]  # type: ignore[valid-type]
        case OptionalType(anyOf=(some, _)):
            inner = annotation_of(some)
            return None if inner is None else Optional[inner]  # noqa: UP045
        case _:
            return None


def with_objects(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with DSPy's objects for images, audio, files and turns.

    Raises:
        AdapterError: `invalid_input`: a value holds no body, or a turn has one of a form that DSPy takes for calls of
            tools (adapters/base.py: `_tool_calls_from_message`).
    """
    made = mapped(signature.attachments, signature.attachments_of_turns, arguments, _object)
    for field in signature.attachments:
        if is_history(field.type) and made[field.name] is not None:
            made[field.name] = dspy.History(messages=_turns(signature, field.name, made[field.name]["messages"]))
    return made


def _turns(signature: Signature, name: str, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        for key, value in turn.items():
            if isinstance(value, dict) and "tool_calls" in value:
                text = f"{name}.messages.{number}.{key}: DSPy takes an object with 'tool_calls' for calls of tools"
                raise AdapterError(ErrorCode.INVALID_INPUT, text)
        objects = {
            key: adapter.validate_python(turn[key])
            for key, adapter in signature.input_objects.items()
            if turn.get(key) is not None
        }
        made.append({**turn, **objects})
    return made


def _object(path: str, kind: Kind, value: str) -> Any:
    try:
        media = parse(kind, value)
    except ValueError as error:
        raise AdapterError(ErrorCode.INVALID_INPUT, f"{path}: {error}") from None
    return _made(kind, media)


def _made(kind: Kind, media: Media) -> Any:
    match kind:
        case "image":
            return dspy.Image(url=media.url)
        case "audio":
            format_name = media.media_type.removeprefix("audio/").removeprefix("x-")
            return dspy.Audio(data=media.data, audio_format=format_name)
        case "file":
            return File(file_data=media.url, filename=media.name)


_SAMPLES: Final[Mapping[Kind, Sequence[Mapping[str, Any]]]] = {
    "image": (),
    "audio": ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},),
    "file": ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},),
}
"""Every way to an LM that DSPy has takes images."""


def sample_blocks(signature: Signature) -> list[Mapping[str, Any]]:
    """Content blocks like those of the signature's audio and files."""
    kinds: set[Kind | None] = {kind_of(field.type) for field in signature.attachments}
    return [block for kind in kinds if kind is not None for block in _SAMPLES[kind]]


def has_media(signature: Any) -> bool:
    """Whether one of DSPy's signatures has an image, audio or a file as an input."""
    return any(holds_media(field.annotation) for field in signature.input_fields.values())


class _Shown(BaseModel):
    """An object as it is written into a prompt."""

    blocks: list[dict[str, Any]]

    @model_serializer
    def __str__(self) -> str:
        return f"{_KEY}{json.dumps(self.blocks, ensure_ascii=False)}{CUSTOM_TYPE_END_IDENTIFIER}"


def shown(value: Any) -> Any:
    """A value of a prompt, in which an object that holds its body has a marker with the key."""
    if type(value) in _PLAIN:
        return value
    match value:
        case list() if any(isinstance(item, _OBJECTS) for item in value):
            return [shown(item) for item in value]
        case dict() if any(isinstance(item, _OBJECTS) for item in value.values()):
            return {key: shown(item) for key, item in value.items()}
        case _ if isinstance(value, _OBJECTS):
            blocks = _blocks(value)
            return value if blocks is None else _Shown(blocks=blocks)
        case _:
            return value


def demo_value(annotation: Any, value: Any) -> Any:
    """The value of a demo in a state as an object: DSPy dumps objects as they stand in a prompt, with the marker.

    Args:
        annotation: that of the field (`holds_media`).

    Raises:
        ValueError: it holds no body, or is none of the field's kind.
    """
    if isinstance(value, list):
        return [demo_value(annotation, item) for item in value]
    found = _media_in(annotation)
    kind: Kind = next(kind for kind in KINDS if _CLASSES[kind] in found)
    if not isinstance(value, str):
        raise ValueError("is no text")
    text = value.removeprefix(CUSTOM_TYPE_START_IDENTIFIER).removesuffix(CUSTOM_TYPE_END_IDENTIFIER)
    return _made(kind, parse(kind, value if text == value else _url_of(text)))


def _url_of(text: str) -> str:
    match from_json(text):
        case [{"type": "image_url", "image_url": {"url": str() as url}}]:
            return url
        case [{"type": "input_audio", "input_audio": {"data": str() as data, "format": str() as form}}]:
            return f"data:audio/{form};base64,{data}"
        case [{"type": "file", "file": {"file_data": str() as data, **rest}}] if rest.keys() <= {"filename"}:
            named = f";name={quote(str(rest['filename']), safe='')}" if rest else ""
            return data.replace(";base64,", f"{named};base64,", 1)
        case _:
            raise ValueError("is no image, audio or file that holds its body")


def holds_media(annotation: Any) -> bool:
    """Whether a field of one of DSPy's signatures has images, audio or files."""
    return bool(_media_in(annotation))


def _media_in(annotation: Any) -> list[Any]:
    found = dspy.Type.extract_custom_type_from_annotation(annotation)
    return [kind for kind in found if kind in _CLASSES.values()]


def as_blocks(value: Any) -> Any:
    """A value for a trace: objects as their content blocks, as DSPy's own `format` keeps the last 32 images."""
    match value:
        case dspy.Image() | dspy.Audio() | File():
            blocks = _blocks(value)
            return value if blocks is None else blocks
        case dspy.History():
            return {"messages": as_blocks(value.messages)}
        case list():
            return [as_blocks(item) for item in value]
        case dict():
            return {key: as_blocks(item) for key, item in value.items()}
        case _:
            return value


def with_markers(content: str) -> str:
    """The text of a prompt with DSPy's own markers for those with the key."""
    return content.replace(_KEY, CUSTOM_TYPE_START_IDENTIFIER)


def _blocks(value: Any) -> list[dict[str, Any]] | None:
    """What the object's own `format` returns, which keeps the last 32 images; None if it does not hold its body."""
    match value:
        case dspy.Image(url=str() as url) if url.startswith("data:"):
            return [{"type": "image_url", "image_url": {"url": url}}]
        case dspy.Audio(data=str() as data):
            return [{"type": "input_audio", "input_audio": {"data": data, "format": value.audio_format}}]
        case File(file_data=str() as data, file_id=None) if data.startswith("data:"):
            named = {"filename": value.filename} if value.filename else {}
            return [{"type": "file", "file": {"file_data": data, **named}}]
        case _:
            return None
