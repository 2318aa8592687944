"""The base of every model in the contract: frozen, and strict about what it does not know."""

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
"""Of more problems than that none is named: pydantic makes a dict of each before one can look at the first."""
MAX_ADVICE = 500
"""Characters of a problem's text."""


_building = threading.RLock()


def _after_fork() -> None:
    """A thread of the parent may have been building a model."""
    global _building
    _building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Frozen(BaseModel):
    """Immutable; refuses unknown fields, NaN and infinities.

    Its validator is built at first use: most processes use few of the models, and should not wait for all at import.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """As pydantic's, one thread at a time: before 2.14 two that use a model first get in each other's way.

        https://github.com/pydantic/pydantic/pull/13438
        """
        with _building:
            return super().model_rebuild(**options)


class Sparse(Frozen):
    """Written without the members that are null: absent and null mean the same in them."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # For each member, and not by a serializer of the model: that would turn all of it into Python and back.
        for member in cls.model_fields.values():
            if member.default is None:
                member.exclude_if = _is_null


def _is_null(value: object) -> bool:
    return value is None


def problems(error: pydantic.ValidationError, prefix: Sequence[str] = ()) -> tuple[Problem, ...]:
    """Every problem of a pydantic error, as a dotted path and a line. Values are never quoted: they may be secret."""
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
    """A wrong item makes pydantic also call its list too short; the item's own problem is enough."""
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
