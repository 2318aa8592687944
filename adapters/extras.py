"""Outputs beside the signature: what a program asks for by `extra_outputs`, as JSON and bounded in size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic_core import to_json, to_jsonable_python

from adapters.port import AdapterError
from dspex import Configuration, ErrorCode, Signature
from dspex.text import storable

MAX_BYTES: Final = 32_768
"""The most bytes, as JSON, of all extra outputs of a run."""
KEPT_CHARACTERS: Final = 1_000
"""How much is kept of one that is too large."""


def check_extras(signature: Signature, configuration: Configuration) -> None:
    """Check that the extra outputs are beside the signature.

    Raises:
        AdapterError: `permanent`: one is an output of the signature, which is kept anyway.
    """
    outputs = {field.name for field in signature.outputs}
    for number, name in enumerate(configuration.extra_outputs):
        if name in outputs:
            text = f"extra_outputs.{number}: '{name}' is an output of the signature: remove it here"
            raise AdapterError(ErrorCode.PERMANENT, text)


def bounded_extras(names: Iterable[str], found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these values that are there, as JSON.

    One that does not fit in `MAX_BYTES` is `{"$cut": "the begin of its text", "bytes": 123456}`; one that is no JSON is
    `{"$not_json": "the name of its class"}`. In texts, what cannot be stored is replaced.
    """
    extras: dict[str, Any] = {}
    left = MAX_BYTES
    for name in names:
        if name not in found:
            continue
        value = _plain(found[name])
        size = len(to_json(value))
        if size > left:
            text = value if isinstance(value, str) else to_json(value).decode()
            value = {"$cut": text[:KEPT_CHARACTERS], "bytes": size}
            size = len(to_json(value))
        left -= size
        extras[name] = value
    return extras


def _plain(value: Any) -> Any:
    try:
        return _clean(to_jsonable_python(value))
    except (ValueError, RecursionError):  # also pydantic's, for what it cannot convert
        return {"$not_json": type(value).__name__[:KEPT_CHARACTERS]}


def _clean(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {storable(str(key)): _clean(item) for key, item in value.items()}
        case _:
            return value
