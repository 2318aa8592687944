"""Limits the values in a trace to bounded JSON without secrets."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import BaseModel, JsonValue

from adapters.port import MAX_TRACE_TEXT

MAX_MEMBERS: Final = 200
MAX_DEPTH: Final = 12


def bounded(value: Any, secrets: Collection[str] = (), *, depth: int = 0) -> JsonValue:
    """Convert any value into a JSON value that can be stored.

    Texts are cut to `MAX_TRACE_TEXT` characters, lists and maps to `MAX_MEMBERS` members and `MAX_DEPTH` levels.

    Args:
        secrets: texts that are replaced wherever they occur.
    """
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value, secrets)
        case _ if depth >= MAX_DEPTH:
            return _text(str(value), secrets)
        case BaseModel():
            return bounded(value.model_dump(mode="json", by_alias=True), secrets, depth=depth)
        case Mapping():
            items = list(value.items())[:MAX_MEMBERS]
            return {_text(str(key), secrets): bounded(item, secrets, depth=depth + 1) for key, item in items}
        case list() | tuple() | set() | frozenset():
            return [bounded(item, secrets, depth=depth + 1) for item in list(value)[:MAX_MEMBERS]]
        case _:
            return _text(str(value), secrets)


def without(text: str, secrets: Collection[str]) -> str:
    """The text with `***` for each secret in it."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(secret, "***")
    return text


def _text(text: str, secrets: Collection[str]) -> str:
    return without(text, secrets)[:MAX_TRACE_TEXT].replace("\x00", "").encode(errors="replace").decode()
