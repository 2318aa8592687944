"""`functools.cached_property` without a lock, as in Python 3.12.

In Python 3.11 all instances share one lock. A child that is forked while a thread holds it waits for it for ever.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self, TypeVar, overload

Value = TypeVar("Value")


class cached(cached_property[Value]):  # noqa: N801
    """A property that is computed at its first use. Threads that use it at the same time may each compute it."""

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
