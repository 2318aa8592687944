"""Stamps the steps of one execution from outside: wraps functions, and notes when each was entered or left.

The clock is the machine's, so that the stamps of a worker and of its client can be put in one order. A process that
does not call `put` runs the code as it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Stamp(NamedTuple):
    """A moment, in seconds of the monotonic clock, and the thread in which it was noted."""

    at: float
    step: str
    thread: str


class Step(NamedTuple):
    """A moment to note.

    Attributes:
        name: what has been reached.
        owner, function: the class or module, and the name of its function.
        left: when the function returns, and not when it is called.
        only: the beginning of the thread's name; "": any thread.
    """

    name: str
    owner: Any
    function: str
    left: bool = False
    only: str = ""


class Stamps:
    """The stamps of this process, in memory until they are written."""

    def __init__(self) -> None:
        self.noted: list[Stamp] = []

    def note(self, step: str) -> None:
        """Note that a step has been reached."""
        self.noted.append(Stamp(time.monotonic(), step, threading.current_thread().name))

    def put(self, steps: Sequence[Step]) -> None:
        """Wrap the functions of these steps. Call it before objects are made that keep references to them."""
        for step in steps:
            setattr(step.owner, step.function, self._wrapped(step, getattr(step.owner, step.function)))

    def _wrapped(self, step: Step, function: Callable[..., Any]) -> Callable[..., Any]:
        def stamped(*arguments: Any, **named: Any) -> Any:
            here = threading.current_thread().name.startswith(step.only)
            if here and not step.left:
                self.note(step.name)
            try:
                return function(*arguments, **named)
            finally:
                if here and step.left:
                    self.note(step.name)

        return stamped

    def write(self, path: Path) -> None:
        """Write the stamps to a file."""
        path.write_text(json.dumps(self.noted))


def read(path: Path) -> list[Stamp]:
    """The stamps in a file."""
    return [Stamp(*one) for one in json.loads(path.read_text())]
