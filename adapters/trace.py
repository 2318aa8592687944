"""Limits the values in a trace to bounded JSON without secrets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, JsonValue

from adapters.port import MAX_TRACE_TEXT

MAX_MEMBERS: Final = 200
MAX_DEPTH: Final = 12


def bounded(value: Any, secret: str | None = None, *, depth: int = 0) -> JsonValue:
    """Convert any value into a JSON value that can be stored.

    Texts are cut to `MAX_TRACE_TEXT` characters, lists and maps to `MAX_MEMBERS` members and `MAX_DEPTH` levels.

    Args:
        secret: a text that is replaced wherever it occurs.
    """
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value, secret)
        case _ if depth >= MAX_DEPTH:
            return _text(str(value), secret)
        case BaseModel():
            return bounded(value.model_dump(mode="json", by_alias=True), secret, depth=depth)
        case Mapping():
            items = list(value.items())[:MAX_MEMBERS]
            return {_text(str(key), secret): bounded(item, secret, depth=depth + 1) for key, item in items}
        case list() | tuple() | set() | frozenset():
            return [bounded(item, secret, depth=depth + 1) for item in list(value)[:MAX_MEMBERS]]
        case _:
            return _text(str(value), secret)


def _text(text: str, secret: str | None) -> str:
    if secret:
        text = text.replace(secret, "***")
    return text[:MAX_TRACE_TEXT].replace("\x00", "").encode(errors="replace").decode()
