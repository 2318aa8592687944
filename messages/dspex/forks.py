"""What is made anew in a forked child, which has neither the threads of its parent nor its locks in a known state."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewed(Protocol):
    """Has threads, or locks that they hold."""

    def _start_anew(self) -> None:
        """Make them again; leave the parent's sockets be."""
        ...


_all: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renew_in_child(thing: Renewed) -> None:
    """Have its `_start_anew` called in every child that is forked from now on."""
    _all.add(thing)


def _after_fork() -> None:
    for thing in tuple(_all):
        thing._start_anew()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
