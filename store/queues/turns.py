"""Whose turn it is: lanes by weights, then tenants, then the queues of each tenant. The state of one process.

If each process is fair, all of them together are. So nothing of this is in the database, and nothing is locked for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from store.queues.keys import LANES, QueueKey
from store.queues.serving import Serving

LANE_WEIGHTS: Final[Mapping[int, int]] = dict(zip(LANES, (16, 4, 1), strict=True))
"""How often each lane is chosen while all of them wait: high, default, bulk."""
KEPT_SECONDS: Final = 0.1
"""For how long found queues are used again."""
HEADS_SECONDS: Final = 1.0
"""For how long the places where the heads of queues were are used."""
MOST_TENANTS: Final = 10_000
"""How many cursors within tenants, and heads of queues, a process remembers."""


class Cursor(NamedTuple):
    """The last queue of a tenant that had its turn."""

    program_id: UUID = UUID(int=0)
    group_key: str = ""


class Ask(NamedTuple):
    """How many executions to take from a queue.

    Attributes:
        since: the head of the queue when it was last looked at; what waits before it is found within `HEADS_SECONDS`.
    """

    queue: QueueKey
    places: int
    since: datetime | None = None


@dataclass
class _Tenant:
    """The found queues of a tenant, in turn. `whole`: all that have a holder."""

    name: str
    queues: list[QueueKey]
    whole: bool
    at: int = 0

    def take(self) -> QueueKey:
        queue = self.queues[self.at]
        self.at += 1
        if self.at == len(self.queues) and self.whole:
            self.at = 0
        return queue

    @property
    def through(self) -> bool:
        """Whether further queues must be found first."""
        return self.at >= len(self.queues)


@dataclass
class _Lane:
    """The found tenants of a lane, in turn. `left`: how often the next one is still to be chosen in its turn."""

    tenants: list[_Tenant] = field(default_factory=list)
    whole: bool = True
    at: int = 0
    left: int = 0

    @property
    def through(self) -> bool:
        return self.at >= len(self.tenants) or self.tenants[self.at].through


class Turns:
    """Shares places among what waits. For one thread, except where it says otherwise.

    Args:
        lanes: the weight of each lane.
        tenants: how many executions of a tenant are chosen in its turn; 1 for those that are not named.
        serving: what the process serves; the lanes that it does not serve have no turn.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        lanes: Mapping[int, int] = LANE_WEIGHTS,
        tenants: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        serving: Serving | None = None,
    ) -> None:
        self.serving = serving or Serving()
        self._served = {lane: weight for lane, weight in lanes.items() if lane in self.serving.lanes}
        self.lanes = dict(self._served)
        self._weights = dict(tenants or {})
        self._clock = clock
        self._passes = dict.fromkeys(self.lanes, 0.0)
        self._last_pass = 0.0
        self._cursors: dict[int, tuple[str, int]] = {}  # of each lane: the last tenant, and what is left of its turn
        self._within: OrderedDict[tuple[int, str], Cursor] = OrderedDict()
        self._found: dict[int, _Lane] = {}
        self._until = 0.0
        self._heads: OrderedDict[QueueKey, datetime] = OrderedDict()
        self._heads_until = 0.0
        self._avoided: OrderedDict[tuple[str, UUID], float] = OrderedDict()
        self._avoids_until = 0.0

    def avoid(self, tenant: str, program_id: UUID, seconds: float) -> None:
        """Leave the executions of a program to other processes for so long. Thread-safe."""
        until = self._clock() + seconds
        _note(self._avoided, (tenant, program_id), until)
        self._avoids_until = max(self._avoids_until, until)
        self.forget()

    @property
    def restricted(self) -> bool:
        """Whether this process passes over some programs."""
        return self.serving.by_program or self._clock() < self._avoids_until

    def avoids(self, tenant: str, program_id: UUID) -> bool:
        """Whether the executions of a program are left to other processes at the moment. Thread-safe."""
        until = self._avoided.get((tenant, program_id))
        return until is not None and self._clock() < until

    def forget(self) -> None:
        """Look for queues again, as others have become ready. Thread-safe."""
        self._until = 0.0

    def leave_out(self, lanes: frozenset[int]) -> None:
        """Choose nothing of these lanes, until it is called with others."""
        left = {number: weight for number, weight in self._served.items() if number not in lanes}
        if left.keys() != self.lanes.keys():
            self.lanes = left
            self.forget()

    @property
    def fresh(self) -> bool:
        """Whether the found queues may be used again."""
        return self._clock() < self._until

    def after(self, lane: int) -> tuple[str, int]:
        """The last tenant of a lane that had its turn ('': none), and how often it is still to be chosen in it."""
        return self._cursors.get(lane, ("", 0))

    def within(self, lane: int, tenant: str) -> Cursor:
        """The last queue of a tenant in a lane that had its turn."""
        return self._within.get((lane, tenant), Cursor())

    def begin(self) -> None:
        """Use what is found from now on for a moment. If it is forgotten meanwhile, it is used this once."""
        self._until = self._clock() + KEPT_SECONDS

    def pass_over(self, queue: QueueKey) -> None:
        """A tenant's queues up to this one are not served here: those after it are found next."""
        _note(self._within, (queue.lane, queue.tenant), Cursor(queue.program_id, queue.group_key))

    def pass_over_tenants(self, lane: int, last: str) -> None:
        """Nothing of the tenants up to this one is served here."""
        self._cursors[lane] = (last, 0)

    def found(self, lane: int, tenants: Iterable[tuple[str, list[QueueKey], bool]], *, whole: bool) -> None:
        """Set what was found in a lane.

        Args:
            tenants: in turn, beginning after the cursor: each with its queues, in turn, and whether these are all.
            whole: whether these are all tenants.
        """
        listed = [_Tenant(name, queues, all_) for name, queues, all_ in tenants if queues]
        name, left = self.after(lane)
        began = bool(listed) and listed[0].name == name and left > 0
        self._found[lane] = _Lane(listed, whole, left=left if began else 0)

    def share(self, places: int) -> list[Ask]:
        """Share places among the found queues, and move the cursors. Fewer, if further queues must be found first."""
        now = self._clock()
        if now >= self._heads_until:
            self._heads.clear()
            self._heads_until = now + HEADS_SECONDS
        asked: dict[QueueKey, int] = {}
        ready = [number for number, lane in self._found.items() if number in self.lanes and not lane.through]
        while places and ready:
            number = self.lane(ready)
            queue = self._next(number, self._found[number])
            asked[queue] = asked.get(queue, 0) + 1
            places -= 1
            if self._found[number].through:
                ready.remove(number)
        return [Ask(queue, wanted, self._heads.get(queue)) for queue, wanted in asked.items()]

    def lane(self, waiting: Iterable[int]) -> int:
        """The lane that is chosen next among these (stride scheduling)."""
        # One that did not wait has no claim on the turns that it left out.
        passes = {number: max(self._passes[number], self._last_pass) for number in waiting}
        number = min(passes, key=lambda one: (passes[one], one))
        self._last_pass = passes[number]
        self._passes[number] = self._last_pass + 1 / self.lanes[number]
        return number

    def _next(self, number: int, lane: _Lane) -> QueueKey:
        tenant = lane.tenants[lane.at]
        queue = tenant.take()
        lane.left = (lane.left or max(1, self._weights.get(tenant.name, 1))) - 1
        self._cursors[number] = (tenant.name, lane.left)
        _note(self._within, (number, tenant.name), Cursor(queue.program_id, queue.group_key))
        if lane.left == 0:
            lane.at += 1
            if lane.at == len(lane.tenants) and lane.whole:
                lane.at = 0
        return queue

    def look_back(self, queue: QueueKey) -> None:
        """Look at the queue from its beginning again."""
        self._heads.pop(queue, None)

    def took(self, queue: QueueKey, last: datetime) -> None:
        """Note the time of the last execution that was taken from a queue."""
        _note(self._heads, queue, last)

    def drop(self, queue: QueueKey) -> None:
        """A queue gave fewer than were asked for: leave it out until queues are looked for again."""
        self._heads.pop(queue, None)
        lane = self._found.get(queue.lane)
        for place, tenant in enumerate(lane.tenants if lane else ()):
            if lane is None or tenant.name != queue.tenant or queue not in tenant.queues:
                continue
            index = tenant.queues.index(queue)
            del tenant.queues[index]
            tenant.at -= index < tenant.at
            if tenant.whole and tenant.at >= len(tenant.queues):
                tenant.at = 0
            if not tenant.queues:
                del lane.tenants[place]
                lane.left = 0 if place == lane.at else lane.left
                lane.at -= place < lane.at
                if lane.whole and lane.at >= len(lane.tenants):
                    lane.at = 0
            return


def _note(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Remember a value; of more than `MOST_TENANTS`, the oldest is forgotten."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST_TENANTS:
        kept.popitem(last=False)
