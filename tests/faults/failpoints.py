"""Where a worker of the fault tests ends itself, by SIGKILL: around claim, call, finish, event and ack.

`before` and `after` are what they say: after the commit, after the confirm, after the ack is on the wire. `uncommitted`
is inside of the transaction, when its statements have run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from dspex.topology import EXECUTIONS_QUEUE
from tests.faults.history import History
from workers.application import Application
from workers.brokers.amqp import AmqpConsumer
from workers.writer import Writer
from workers.writes import Writes

POINTS: Final = (
    *("claim.before", "claim.uncommitted", "claim.after"),
    *("call.before", "call.after"),
    *("finish.before", "finish.uncommitted", "finish.after"),
    *("event.before", "event.after"),
    *("ack.before", "ack.after"),
)

_KILLED_AT: Final = "DSPEX_TEST_FAILPOINT"


def setting(point: str, times: int) -> dict[str, str]:
    """The environment of a worker that ends when it comes to `point` for the `times`-th time."""
    if point not in POINTS:
        raise ValueError(f"{point} is not one of {', '.join(POINTS)}")
    return {_KILLED_AT: f"{point} {times}"}


class _Failpoint:
    def __init__(self, history: History, point: str, times: int) -> None:
        self._history = history
        self._point = point
        self._left = times
        self._lock = threading.Lock()

    def reached(self, point: str) -> None:
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._history.record("failpoint", point=point, pid=os.getpid())
                os.kill(os.getpid(), signal.SIGKILL)


_armed: list[_Failpoint] = []


def reached(point: str) -> None:
    """Called at a point."""
    for failpoint in _armed:
        failpoint.reached(point)


def arm(history: History) -> None:
    """Arm what the environment names."""
    point, _, times = os.environ.get(_KILLED_AT, "").partition(" ")
    if not point:
        return
    _armed.append(_Failpoint(history, point, int(times)))
    _around(Writer, "call", lambda _, operation, *__: _write(operation))
    for name in ("claim", "finish"):
        _around(Writes, name, lambda *_, name=name: name, before=None, after="uncommitted")
    _around(Application, "emit", lambda _, event, *__: "event" if event.type.startswith("dspex.execution.") else None)
    _around(AmqpConsumer, "ack", lambda consumer, _: _ack(consumer), after=None)
    _around(AmqpConsumer, "_settle_now", lambda consumer, *_: _ack(consumer), before=None)


def _write(operation: Any) -> str | None:
    name: str = operation.__name__
    return name if name in ("claim", "finish") else None


def _ack(consumer: Any) -> str | None:
    return "ack" if consumer._queue_name == EXECUTIONS_QUEUE else None


def _around(
    owner: Any,
    name: str,
    what: Callable[..., str | None],
    *,
    before: str | None = "before",
    after: str | None = "after",
) -> None:
    """Have a method come to a point before and after its work; `what` names it by the arguments, or None."""
    method = getattr(owner, name)

    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        point = what(*args)
        if point and before:
            reached(f"{point}.{before}")
        result = method(*args, **kwargs)
        if point and after:
            reached(f"{point}.{after}")
        return result

    setattr(owner, name, wrapper)
