"""Removes malformed optional parts from responses that are not quite in OpenAI's format.

DSPy's client fails with what looks like a bug of its own if `usage` is a text or `tool_calls` a number, although the
response also contains the LM's answer, which has been paid for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_LISTS: Final = ("tool_calls", "annotations")


def without_odd_parts(body: bytes) -> bytes | None:
    """The response without its usage and without malformed lists; None if it is no response or has no such part."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    changed = answer.pop("usage", None) is not None
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        message: Any = choice.get("message") if isinstance(choice, Mapping) else None
        for name in _LISTS:
            if isinstance(message, dict) and not isinstance(message.get(name, []), list):
                del message[name]
                changed = True
    return json.dumps(answer).encode() if changed else None
