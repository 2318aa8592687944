"""Who answered an LM call, by its own account: the provider's name of the request, and the version of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from adapters.native.insides import headers_of
from adapters.native.wire import Call

REQUEST_IDS: Final = ("x-request-id", "request-id", "x-amzn-requestid", "x-goog-request-id", "cf-ray")
"""The headers with the provider's name of a request, the most telling first."""

_STREAM: Final = b"data:"
_FIRST: Final = 8
"""How many lines of a stream are read for its model, which the first event has."""


def request_id_of(call: Call) -> Any:
    """The provider's name of a call: of the request, by its headers, or else of the response."""
    headers = {name.lower(): value for name, value in call.headers or headers_of(call.response)}
    return next((headers[name] for name in REQUEST_IDS if name in headers), getattr(call.response, "id", None))


def model_version_of(call: Call) -> Any:
    """The model that answered. Of a stream, DSPy's client tells the one that was asked for."""
    lines = call.body[: 1 << 16].splitlines()[:_FIRST]
    events = [line.removeprefix(_STREAM) for line in lines if line.startswith(_STREAM)]
    return next(filter(None, map(_model, events)), None) if events else getattr(call.response, "model", None)


def _model(event: bytes) -> Any:
    """The model in an event of OpenAI's or Gemini's, Anthropic's, or OpenAI's responses."""
    try:
        data = json.loads(event)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, Mapping):
        return None
    within = (data.get("message"), data.get("response"))
    found = (part.get("model") or part.get("modelVersion") for part in (data, *within) if isinstance(part, Mapping))
    return next(filter(None, found), None)
