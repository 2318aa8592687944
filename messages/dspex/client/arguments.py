"""A wrong argument of a verb is an error of DSPex, like all that a verb raises, and not one of the models under it."""

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
    """The class, whose public methods raise `InvalidValues` where an argument does not fit the command it goes into."""
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
