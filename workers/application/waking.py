"""How the parts of a process say that an execution may be chosen here. A worker's process says what follows."""

from __future__ import annotations

from collections.abc import Callable


class Waking:
    """Does nothing in a process that runs no executions.

    Attributes:
        look: called when executions wait, or have become due. May be called in any thread, and does not wait.
        later: calls something in so many seconds; `None`: `look`, for one that is due then.
    """

    def __init__(self) -> None:
        self.look: Callable[[], None] = lambda: None
        self.later: Callable[[float, Callable[[], None] | None], None] = lambda _seconds, _call: None
