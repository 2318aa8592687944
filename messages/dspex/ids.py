"""Identifiers. Producers choose the id of what they create, so that sending twice is the same as sending once."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import Final

from pydantic_core import to_json

DEFAULT_TENANT: Final = "default"
"""The tenant of a system without tenants."""


def uuid7() -> uuid.UUID:
    """A UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits; sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def canonical_json(value: object) -> bytes:
    """The JSON text of a value of JSON types, the same for equal values: keys sorted, no white space."""
    return to_json(_sorted(value), inf_nan_mode="constants")


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of a value, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) if isinstance(value[key], _NESTED) else value[key] for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) if isinstance(item, _NESTED) else item for item in value]
    return value


_NESTED = (dict, list, tuple)
