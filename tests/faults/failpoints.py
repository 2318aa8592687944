"""Where a worker of the fault tests ends itself, by SIGKILL: at each point of an execution's walk, and of the relay's.

`before` and `after` are what they say: `claim.after` is after the commit, when the message is accepted and not acked;
`choose.after` when no thread knows yet of what was chosen, `begin.after` when none has begun it; `event.after` when the
broker has confirmed, `ack.after` when it is on the wire. `uncommitted` is inside of the transaction, when its
statements have run: queues are offered by then, or marked as empty. So is all of `take` (executions are taken from
their queues), `offer`, `mark` (a queue as one in which nothing may run), `wake`, `adopt` and `group`.

The points of `STEERING` are reached by what operators ask for: `early` leaves an early cancel, `cancel_many` is a batch
of a cancel by filter, `end_waiting` one of what waits of an archived program. Their `after` is after the commit, when
nobody is told of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, Final

from dspex.amqp.topology import EXECUTIONS_QUEUE
from store import executions
from store.executions import archived, choosing, early, grouping, waiting
from store.gates import Choice
from tests.faults.history import History
from workers.brokers.subscription import Subscription
from workers.execution.admission import Intake
from workers.execution.event_publisher import Announcement
from workers.handlers import cancels
from workers.handlers.waits import Overtaking
from workers.maintenance import archived as ends_of_archived
from workers.persistence import operations
from workers.persistence.group_commit import Writer
from workers.persistence.operations import Writes

_WRITES: Final = ("claim", "choose", "finish", "retry", "event_sent", "rescue", "look_after_queues")
_STEPS: Final[Mapping[str, tuple[Any, str]]] = {
    "take": (choosing, "_take"),
    "offer": (waiting, "offer"),
    "mark": (choosing, "_mark"),
}
_STEERED: Final[Mapping[str, tuple[Any, str]]] = {
    "adopt": (executions, "adopt"),
    "group": (grouping, "_group"),
    "wake": (operations, "wake"),
    "early": (early, "leave"),
    "cancel_many": (executions, "cancel_many"),
    "end_waiting": (archived, "end_waiting"),
}
_TOLD: Final[Mapping[str, tuple[Any, str]]] = {
    "early": (Overtaking, "wait"),
    "cancel_many": (cancels, "_tell"),
    "end_waiting": (ends_of_archived, "tell_end"),
}
"""What is called after the commit of these."""

POINTS: Final = (
    *(f"{write}.{when}" for write in _WRITES for when in ("before", "uncommitted", "after")),
    *("call.before", "call.after"),
    *("ack.before", "ack.after"),
    *("event.before", "event.after"),
    *("begin.before", "begin.after"),
    *("take.after", "offer.before", "offer.after", "mark.before", "mark.after"),
)
STEERING: Final = (*(f"{step}.uncommitted" for step in _STEERED), *(f"{step}.after" for step in _TOLD))

GATE_POINTS: Final = ("slots.before", "slots.uncommitted", "settle.before", "settle.uncommitted")
"""Those of a limit: a choice gives slots to what it has taken, an end gives its slot back, each in its transaction."""

_KILLED_AT: Final = "DSPEX_TEST_FAILPOINT"


def setting(point: str, times: int) -> dict[str, str]:
    """The environment of a worker that ends when it comes to `point` for the `times`-th time."""
    if point not in (*POINTS, *GATE_POINTS, *STEERING):
        raise ValueError(f"{point} is not one of {', '.join((*POINTS, *GATE_POINTS, *STEERING))}")
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
    _around(Writer, "_transaction", lambda _, batch: _writes_of(batch))
    for name in _WRITES:
        _around(Writes, name, lambda *_, name=name: [name], before=None, after="uncommitted")
    _around(Choice, "taken", lambda *_: ["slots"], after="uncommitted")
    _around(operations, "settle", lambda *_: ["settle"], after="uncommitted")
    _around(Subscription, "settle", lambda subscription, *_: _ack(subscription), after=None)
    _around(Subscription, "_flush", _ack, before=None)
    _around(Announcement, "send", lambda *_: ["event"], after=None)
    _around(Announcement, "_confirmed", lambda *_: ["event"], before="after", after=None)
    _around(Intake, "_begin", lambda *_: ["begin"])
    for step, (owner, name) in _STEPS.items():
        _around(owner, name, lambda *_, step=step: [step], did=_something if step == "take" else _anything)
    for step, (owner, name) in _STEERED.items():
        did = _something if step in ("adopt", "group", "wake", "end_waiting") else _anything
        _around(owner, name, lambda *_, step=step: [step], before=None, after="uncommitted", did=did)
    for step, (owner, name) in _TOLD.items():
        _around(owner, name, lambda *given, step=step: _told(step, given), before="after", after=None)


def _writes_of(batch: Iterable[Any]) -> list[str]:
    return [write.operation.__name__ for write in batch if write.operation.__name__ in _WRITES]


def _ack(subscription: Any) -> list[str]:
    return ["ack"] if subscription._queue_name == EXECUTIONS_QUEUE else []


def _told(step: str, given: Sequence[Any]) -> list[str]:
    """A single cancel is told of in the same way as those of a filter."""
    return [] if step == "cancel_many" and len(given[1]) == 1 else [step]


def _anything(_result: Any) -> bool:
    return True


def _something(result: Any) -> bool:
    """Whether a step found something to do."""
    return bool(result.executions if isinstance(result, archived.Ended) else result)


def _around(
    owner: Any,
    name: str,
    what: Callable[..., list[str]],
    *,
    before: str | None = "before",
    after: str | None = "after",
    did: Callable[[Any], bool] = _anything,
) -> None:
    """Have a function come to a point before its work, and after it, if it `did` something; `what` names the point by
    the arguments.
    """
    method = getattr(owner, name)

    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        points = what(*args)
        for point in points if before else ():
            reached(f"{point}.{before}")
        result = method(*args, **kwargs)
        for point in points if after and did(result) else ():
            reached(f"{point}.{after}")
        return result

    setattr(owner, name, wrapper)
