"""Reads JSON and TOML texts that people wrote. Refuses what is ambiguous, and any depth without a traceback."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from typing import Any, Final


class NotJson(ValueError):
    """The text is not JSON, or is ambiguous."""


class NotToml(ValueError):
    """The text is not TOML."""


def read_json(text: str) -> Any:
    """Parse a JSON text. Refuses NaN, Infinity and a key that comes twice.

    Raises:
        NotJson: the text is refused. It says why.
    """
    try:
        return _DECODER.decode(text)
    except NotJson:
        raise
    except RecursionError:
        raise NotJson("is not JSON: its values are too deep in one another") from None
    except ValueError as error:
        raise NotJson(f"is not JSON: {error}") from None


def read_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        NotToml: the text is refused. It says why.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NotToml("is not TOML: its values are too deep in one another") from None
    except ValueError as error:  # also of a whole number with more digits than Python reads
        raise NotToml(f"is not TOML: {error}") from None


def _no_constant(name: str) -> Any:
    raise NotJson(f"is not JSON: {name} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise NotJson(f"has the key {twice!r} twice")
    return found


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique)
