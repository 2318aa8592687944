"""The queue between the consumers and the threads that run actors. It replaces Dramatiq's own.

One sleeping thread is woken at a time. When it takes its item, it wakes the next one, if there is more to do. So jobs
that block spread over all threads, while short jobs are handled by the few that are awake; waking a thread for each
short job was a large part of its cost. Go's scheduler works alike (runtime/proc.go, "Worker thread parking/unparking").

Slow work leaves threads for quick work: there is a limit to how many items of a priority, and of lower ones, are
handled at a time. An item that must wait is put aside, without a thread.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from queue import Empty
from typing import Protocol

from workers.brokers.delivery import Delivery, Source

QUICK, CHANGES, URGENT, EXECUTIONS = 0, 5, 8, 10
"""The priorities: quick commands such as queries and cancels; those that build a program or go through many rows;
executions of the lane `high`; all others.
"""


class Item(Protocol):
    """An item from Dramatiq's consumers: a message, with its actor's priority."""

    priority: int
    message: Delivery


class _Lane:
    """The items of one priority.

    Attributes:
        handled: how many items of this priority and lower ones threads handle now.
        ahead: this lane and those of higher priority, in whose `handled` its items count.
    """

    __slots__ = ("ahead", "handled", "items", "limit", "priority")

    def __init__(self, priority: int, limit: float) -> None:
        self.priority = priority
        self.limit = limit
        self.items: deque[Item] = deque()
        self.handled = 0
        self.ahead: tuple[_Lane, ...] = ()


class WorkQueue:
    """First in, first out, by priority; lower numbers come first. Thread-safe.

    A thread that takes an item has finished the one that it took before.

    Args:
        limits: by priority, how many items of it and of lower priorities may be handled at a time.
    """

    def __init__(self, limits: Mapping[int, int] | None = None) -> None:
        self._limits = dict(limits or {})
        self._lock = threading.Lock()
        self._lanes: tuple[_Lane, ...] = ()  # by priority
        self._lane_of: dict[int, _Lane] = {}
        self._held: dict[int, _Lane] = {}  # the lane of each thread's item
        self._aside: list[tuple[float, int, Item]] = []  # a heap, by the time when they return
        self._numbers = itertools.count()
        self._timer = math.inf  # when a sleeping thread will wake for the heap
        self._asleep: list[threading.Lock] = []  # a stack: the last to fall asleep is woken first
        self._waking = False

    def put(self, item: Item) -> None:
        """Add an item."""
        with self._lock:
            lane = self._lane_of.get(item.priority) or self._make_lane(item.priority)
            lane.items.append(item)
            if lane.handled < lane.limit:
                self._wake()

    def put_aside(self, item: Item, seconds: float) -> None:
        """Add an item after so many seconds."""
        with self._lock:
            due = time.monotonic() + seconds
            heapq.heappush(self._aside, (due, next(self._numbers), item))
            if due < self._timer:
                self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Take an item. Waits up to `timeout` seconds for one; None: no limit.

        Raises:
            Empty: there was no item in time.
        """
        if self._aside:
            self._bring_back()
        with self._lock:
            done = self._held.pop(threading.get_ident(), None)
            if done is not None:
                for lane in done.ahead:
                    lane.handled -= 1
            ready = self._ready()
            if ready is not None or not block:
                return self._take(ready)
            timer = self._set_timer()
            if timer is not None:
                left = max(0.0, timer - time.monotonic())
                timeout = left if timeout is None else min(left, timeout)
            bell = threading.Lock()
            bell.acquire()
            self._asleep.append(bell)
        try:
            bell.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            # Also if an exception ends the thread here: otherwise no other would be woken.
            with self._lock:
                if bell in self._asleep:
                    self._asleep.remove(bell)
                else:
                    self._waking = False
                if timer is not None and timer == self._timer:
                    self._timer = math.inf
        if self._aside:
            self._bring_back()
        with self._lock:
            return self._take(self._ready())

    def get_nowait(self) -> Item:
        """Take an item. Raises `Empty` if there is none."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Does nothing, as nobody waits for all items to be done."""

    def forget(self, source: Source) -> list[Item]:
        """Drop the items of a closed source, which the broker delivers again. Returns them.

        Otherwise they would be handled twice, and the queue of a busy process would grow with each reconnection.
        """
        return self.take_out(lambda item: item.message.source is source)

    def take_out(self, condition: Callable[[Item], bool]) -> list[Item]:
        """Take all items that meet the condition."""
        found: list[Item] = []
        with self._lock:
            for lane in self._lanes:
                for item in [lane.items.popleft() for _ in range(len(lane.items))]:
                    (found if condition(item) else lane.items).append(item)
            found += [item for _, _, item in self._aside if condition(item)]
            self._aside = [entry for entry in self._aside if not condition(entry[2])]
            heapq.heapify(self._aside)
        return found

    def waiting(self, priority: int) -> int:
        """How many items of a priority wait."""
        lane = self._lane_of.get(priority)
        return 0 if lane is None else len(lane.items)

    def qsize(self) -> int:
        """How many items wait, without those that were put aside."""
        return len(self)

    @property
    def aside(self) -> list[Item]:
        """The items that are put aside."""
        with self._lock:
            return [item for _, _, item in self._aside]

    def __len__(self) -> int:
        return sum(len(lane.items) for lane in self._lanes)

    def _make_lane(self, priority: int) -> _Lane:
        made = self._lane_of[priority] = _Lane(priority, self._limits.get(priority, math.inf))
        made.handled = sum(held.priority >= priority for held in self._held.values())
        self._lanes = tuple(sorted(self._lane_of.values(), key=lambda lane: lane.priority))
        for number, lane in enumerate(self._lanes, 1):
            lane.ahead = self._lanes[:number]
        return made

    def _ready(self) -> _Lane | None:
        """The lane of the next item that a thread may take."""
        for lane in self._lanes:
            if lane.items and lane.handled < lane.limit:
                return lane
        return None

    def _take(self, lane: _Lane | None) -> Item:
        """Take a lane's next item, and wake a thread if there are more."""
        if lane is None:
            raise Empty
        item = lane.items.popleft()
        self._held[threading.get_ident()] = lane
        for counted in lane.ahead:
            counted.handled += 1
        if self._asleep and (self._ready() is not None or (self._aside and self._aside[0][0] < self._timer)):
            self._wake()
        return item

    def _set_timer(self) -> float | None:
        """When this thread must wake for items put aside; None if there are none, or another thread will."""
        if not self._aside or self._aside[0][0] >= self._timer:
            return None
        self._timer = self._aside[0][0]
        return self._timer

    def _bring_back(self) -> None:
        """Add the items whose time aside is over."""
        for item in self._due():
            self.put(item)

    def _due(self) -> Iterable[Item]:
        found: list[Item] = []
        with self._lock:
            while self._aside and self._aside[0][0] <= time.monotonic():
                found.append(heapq.heappop(self._aside)[2])
        return found

    def _wake(self) -> None:
        if self._asleep and not self._waking:
            self._waking = True
            self._asleep.pop().release()
