"""Renews objects in a forked child, which lacks its parent's threads and inherits locks in an unknown state."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewed(Protocol):
    """An object with threads, or with locks that threads hold."""

    def _start_anew(self) -> None:
        """Make threads and locks again. Do not touch the parent's sockets."""
        ...


_all: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_child(thing: Renewed) -> None:
    """Call the object's `_start_anew` in every child that is forked from now on."""
    _all.add(thing)


def _after_fork() -> None:
    for thing in tuple(_all):
        thing._start_anew()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
