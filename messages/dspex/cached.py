"""`functools.cached_property` as it is from Python 3.12 on: without a lock.

That of 3.11 is one for all instances, and a child that is forked while a thread holds it waits for it for ever.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self, TypeVar, overload

Value = TypeVar("Value")


class cached(cached_property[Value]):  # noqa: N801
    """Computed at first use; where several threads are first at once, by each of them."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Value: ...
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self | Value:
        if instance is None:
            return self
        value: Value = self.func(instance)
        instance.__dict__[self.attrname or ""] = value
        return value
