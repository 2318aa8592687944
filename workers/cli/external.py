"""`dspex execution mark-completed|mark-failed`: their options that are JSON."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dspex.client.interface import Interface
from dspex.errors import InvalidValues, Problem
from dspex.json_text import NotJson, read_json


def mark_completed(
    client: Interface,
    execution_id: UUID,
    lock_version: int,
    outputs: str,
    extra_outputs: str | None = None,
    usage: str | None = None,
    **given: Any,
) -> Any:
    """See `ExternalVerbs.mark_completed`."""
    return client.mark_completed(
        execution_id,
        lock_version,
        _object("--outputs", outputs),
        extra_outputs=None if extra_outputs is None else _object("--extra-outputs", extra_outputs),
        usage=None if usage is None else _object("--usage", usage),
        **given,
    )


def mark_failed(client: Interface, usage: str | None = None, **given: Any) -> Any:
    """See `ExternalVerbs.mark_failed`."""
    return client.mark_failed(usage=None if usage is None else _object("--usage", usage), **given)


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = read_json(text)
    except NotJson as error:
        raise InvalidValues([Problem(option, str(error))]) from None
    if not isinstance(value, dict):
        raise InvalidValues([Problem(option, "must be a JSON object")])
    return value
