"""Limits the values in a trace to bounded JSON without secrets."""

from __future__ import annotations

import binascii
import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, JsonValue
from pydantic_core import to_json

from adapters.port import MAX_TRACE_BYTES, MAX_TRACE_STEPS, MAX_TRACE_TEXT, TraceStep

MAX_MEMBERS: Final = 200
MAX_DEPTH: Final = 12
MAX_NAME: Final = 200
"""The longest kind and name of a step, in characters."""
MAX_PROMPT_TEXT: Final = 1_000_000
"""The longest text of a prompt that is shown, in characters."""
_LIMITS: Final = (MAX_TRACE_TEXT, 2_000, 400, 80)
_LARGE: Final = 64
"""Larger numbers, in bits, are not kept: to write one of thousands of digits is slow, or refused."""


_BODY = re.compile(r'(;base64,|"data": ")([A-Za-z0-9+/]{64,}={0,2})')
"""The body of a data URL, or of audio as it is in a prompt."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")


def bounded(value: Any, secrets: Collection[str] = (), *, most: int = MAX_TRACE_TEXT, depth: int = 0) -> JsonValue:
    """Convert any value into a JSON value that can be stored.

    Texts are cut to `most` characters, lists and maps to `MAX_MEMBERS` members and `MAX_DEPTH` levels.

    Args:
        secrets: texts that are replaced wherever they occur.
    """
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() < _LARGE else f"a number of {value.bit_length()} bits"
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value, secrets, most)
        case _ if depth >= MAX_DEPTH:
            return _text(str(value), secrets, most)
        case Enum():
            return bounded(value.value, secrets, most=most, depth=depth)
        case BaseModel():
            return bounded(value.model_dump(mode="json", by_alias=True), secrets, most=most, depth=depth)
        case {"data": str() as data, "format": str()} if _BASE64.fullmatch(data):
            return {"data": _described(data), "format": _text(value["format"], secrets, most)}
        case Mapping():
            items = list(value.items())[:MAX_MEMBERS]
            return {
                _text(str(key), secrets, most): bounded(item, secrets, most=most, depth=depth + 1)
                for key, item in items
            }
        case list() | tuple() | set() | frozenset():
            return [bounded(item, secrets, most=most, depth=depth + 1) for item in list(value)[:MAX_MEMBERS]]
        case _:
            return _text(str(value), secrets, most)


def bounded_step(step: TraceStep, secrets: Collection[str] = (), *, most: int = MAX_TRACE_TEXT) -> TraceStep:
    """A step that somebody else made, with bounded texts and without the secrets."""
    return TraceStep(
        kind=_text(step.kind, secrets, MAX_NAME),
        name=_text(step.name, secrets, MAX_NAME),
        details={_text(key, secrets, most): bounded(item, secrets, most=most) for key, item in step.details.items()},
        duration_ms=step.duration_ms,
    )


def bounded_message(message: Any, secrets: Collection[str] = ()) -> dict[str, JsonValue]:
    """A message of a prompt as JSON, whoever made it."""
    found = bounded(message, secrets, most=MAX_PROMPT_TEXT)
    return found if isinstance(found, dict) else {"content": found}


def fitting(steps: Sequence[TraceStep], max_bytes: int = MAX_TRACE_BYTES) -> tuple[tuple[TraceStep, ...], bool]:
    """The steps in at most `max_bytes` of JSON, whoever made them, and whether they were shortened for it.

    Every step keeps its place: longer and longer parts of the texts go first, then the details, and then the steps
    above `MAX_TRACE_STEPS`.
    """
    within, more = steps[:MAX_TRACE_STEPS], len(steps) > MAX_TRACE_STEPS
    for most in _LIMITS:
        if (kept := _within(within, max_bytes, most)) is not None:
            return kept, more or most != MAX_TRACE_TEXT
    return tuple(bounded_step(step.model_copy(update={"details": {}})) for step in within), True


def _within(steps: Sequence[TraceStep], max_bytes: int, most: int) -> tuple[TraceStep, ...] | None:
    """The steps with their texts cut to `most`, if they fit. Looks at no more of them than fit."""
    kept, left = list[TraceStep](), max_bytes
    for step in steps:
        kept.append(bounded_step(step, most=most))
        left -= len(to_json(kept[-1])) + len(",")
        if left < len("[]"):
            return None
    return tuple(kept)


def without(text: str, secrets: Collection[str]) -> str:
    """The text with `***` for each secret in it."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    return text


def without_bodies(text: str) -> str:
    """The text with size and digest for the body of each image, audio or file in it."""
    return _BODY.sub(lambda match: match[1] + _described(match[2]), text)


def _described(data: str) -> str:
    try:
        body = binascii.a2b_base64(data)
    except binascii.Error:
        return f"({len(data)} characters)"
    return f"({len(body)} bytes, sha256:{hashlib.sha256(body).hexdigest()})"


def _text(text: str, secrets: Collection[str], most: int) -> str:
    return without_bodies(without(text, secrets))[:most].replace("\x00", "").encode(errors="replace").decode()
