"""The name of a signature that was given none: from its fields, such as `ticket_to_urgency_reason`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspex.signatures.field import SignatureField

GENERIC = "signature"
"""Stands for no name: clients from before names were derived send it for a signature that has none."""

SHOWN = 3
MAX_SIDE = 98
"""How many fields of a side are named, and how long that may be, in characters."""


def with_name(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of a signature with a name: the one that it has, or one derived from its fields, which may be wrong."""
    if data.get("name", GENERIC) != GENERIC:
        return data
    inputs, outputs = (_names(data.get(side)) for side in ("inputs", "outputs"))
    return {**data, "name": derived_name(inputs, outputs)}


def derived_name(inputs: Iterable[str], outputs: Iterable[str]) -> str:
    """A name from the names of the fields."""
    return f"{_side([*inputs])}_to_{_side([*outputs])}"


def _side(names: list[str]) -> str:
    more = [f"{len(names) - SHOWN}_more"] if len(names) > SHOWN else []
    return "_".join([*names[:SHOWN], *more])[:MAX_SIDE]


def _names(fields: object) -> list[str]:
    found = [
        field.name if isinstance(field, SignatureField) else field.get("name")
        for field in (fields if isinstance(fields, list | tuple) else ())
        if isinstance(field, SignatureField | Mapping)
    ]
    return [name for name in found if isinstance(name, str)]
