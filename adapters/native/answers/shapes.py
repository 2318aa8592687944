"""Answers whose parts have not the shape of OpenAI's: what no answer needs is taken out of them.

DSPy's client raises what looks like a flaw of its own over a `usage` that is text, or `tool_calls` that are a number.
What the LM wrote stands beside it, and has been paid for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_LISTS: Final = ("tool_calls", "annotations")


def without_odd_parts(body: bytes) -> bytes | None:
    """The answer without its usage, and without lists that are none; None: it is no answer, or has no such part."""
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
