"""The messages that modules define, by their type. To write the class is all: there is no other list of them."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import ClassVar, Protocol, TypeVar


class Typed(Protocol):
    """A class of messages. One without a `type` of its own is a base of others."""

    type: ClassVar[str]


Message = TypeVar("Message", bound=Typed)


def by_type(base: type[Message], modules: Iterable[ModuleType]) -> dict[str, type[Message]]:
    """The subclasses of `base` that are written in these modules, in that order.

    Raises:
        TypeError: two have the same type.
    """
    found: dict[str, type[Message]] = {}
    for module in modules:
        for one in vars(module).values():
            written_here = isinstance(one, type) and one.__module__ == module.__name__
            if not (written_here and issubclass(one, base) and "type" in vars(one)):
                continue
            if found.setdefault(one.type, one) is not one:
                raise TypeError(f"{one.__name__} has the type of {found[one.type].__name__}: {one.type}")
    return found
