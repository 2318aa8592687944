"""The base of every model in the contract: frozen, and closed to unknown fields."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from dspex.errors import Problem

MAX_PROBLEMS = 50
MAX_COUNTED = 5_000
"""With more problems than this, none is named: pydantic builds a dict for every one before the first can be read."""
MAX_ADVICE = 500
"""The longest text of a problem, in characters."""


_building = threading.RLock()


def _after_fork() -> None:
    """Renew the lock: a thread of the parent may have held it to build a model."""
    global _building
    _building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Frozen(BaseModel):
    """Immutable; refuses unknown fields, NaN and infinities.

    The validator of a model is built at its first use, as most processes use few of the models.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """Like pydantic's, but in one thread at a time: before 2.14, two threads can break each other's first use.

        https://github.com/pydantic/pydantic/pull/13438
        """
        with _building:
            return super().model_rebuild(**options)


class Sparse(Frozen):
    """Serialized without the members that are null: in these models, absent and null mean the same."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # On each member: a serializer of the whole model would convert all of it to Python objects and back.
        for member in cls.model_fields.values():
            if member.default is None:
                member.exclude_if = _is_null


def _is_null(value: object) -> bool:
    return value is None


def problems(error: pydantic.ValidationError, prefix: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Every problem of a pydantic error, as a dotted path and a line. No value is quoted, as it may be secret."""
    if error.error_count() > MAX_COUNTED:
        return (Problem(".".join(prefix), f"has {error.error_count()} problems, too many to name them"),)
    details = error.errors(include_url=False, include_context=True, include_input=False)
    found = [
        Problem(".".join([*prefix, *_path(detail)]), _shortened(_advice(detail)))
        for detail in details[:MAX_PROBLEMS]
        if not (detail["type"] == "too_short" and _explained(detail, details))
    ]
    if len(details) > MAX_PROBLEMS:
        found.append(Problem("", f"and {len(details) - MAX_PROBLEMS} more"))
    return tuple(found)


def _explained(short: Any, details: Sequence[Any]) -> bool:
    """Whether a problem only follows from another: for a wrong item, pydantic also calls the list too short."""
    loc = short["loc"]
    return any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details)


def _path(detail: Any) -> list[str]:
    return [str(part)[:100] for part in detail["loc"] if not str(part).startswith("<")]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_ADVICE else f"{text[:MAX_ADVICE]}…"


def _advice(detail: Any) -> str:
    match detail["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a known field: remove it"
        case "value_error":
            return str(detail["ctx"]["error"])
        case _:
            message: str = detail["msg"]
            return message[:1].lower() + message[1:]
