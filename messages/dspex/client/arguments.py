"""Turns pydantic's errors about wrong arguments of a verb into DSPex errors, like all others that a verb raises."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pydantic

from dspex.errors import InvalidValues
from dspex.model import problems

P = ParamSpec("P")
Result = TypeVar("Result")
Verbs = TypeVar("Verbs")


def arguments_checked(verbs: type[Verbs]) -> type[Verbs]:
    """Make the public methods of a class raise `InvalidValues` if an argument does not fit the command's model."""
    for name, member in tuple(vars(verbs).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(verbs, name, _checked(member))
    return verbs


def _checked(verb: Callable[P, Result]) -> Callable[P, Result]:
    @functools.wraps(verb)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return verb(*args, **kwargs)
        except pydantic.ValidationError as error:
            raise InvalidValues(problems(error)) from None

    return checked
