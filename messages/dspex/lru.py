"""A least-recently-used cache, bounded by the size of its values instead of their number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from dspex.forks import renew_in_child

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lru(Generic[Key, Value]):
    """Values by key. Drops the least recently used ones when their sizes exceed `max_size`. Thread-safe.

    Args:
        max_size: of all values together, in the unit of `put`'s `size`. A single value above it is not kept.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._start_anew()
        renew_in_child(self)

    def _start_anew(self) -> None:
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """The size of all values together."""
        return self._size

    def get(self, key: Key) -> Value | None:
        """The value of a key; None if it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value; it replaces one with the same key."""
        with self._lock:
            self._drop(key)
            if size > self._max_size:
                return
            self._kept[key] = value, size
            self._size += size
            while self._size > self._max_size:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._size -= size
