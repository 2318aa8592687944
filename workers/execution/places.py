"""The places of a process, one for each execution that it may have claimed at a time, and who gets the free ones.

A new message gets a free place at once, unless executions are known to wait: then it waits like them, as a row, and the
database chooses who is next (`store.executions.choosing`). One choice is made at a time, for all places that are free.

A new message of the lane `high` finds a place that is kept for its lane, where others wait: so an urgent execution need
not wait for the end of one that is not.

While runs are short, a message that finds no free place is held for a moment, as one will be free soon: to write it
down as waiting would cost more. Where that goes on, the broker may have a backlog: then all are written down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from dspex.backoff import doubled
from dspex.contract.options import Lane
from store.database.identity import Identity
from store.executions import Request
from store.executions.choosing import Choice, Chosen
from store.executions.rows import lane_of
from workers.application.wiring import Application
from workers.persistence.group_commit import WriterClosed
from workers.persistence.operations import Look

BATCH = 3
"""While runs are short, a choice is made when the third part of the places is free, or none is claimed ahead."""
HOLD_SECONDS = 0.5
"""For so long at most, messages are held. What comes in this time was sent in it, so each is a row within a second."""
AGAIN_SECONDS, MOST_AGAIN_SECONDS = 0.01, 0.08
"""The pause after a choice that found nothing, although something waits: others have locked it at the moment."""


KEPT = 8
"""One place for every so many threads is beside the others, and for new executions of the lane `high` only."""


def kept_for_urgent(threads: int) -> int:
    """How many executions of the lane `high` may run beside those that so many threads run."""
    return threads // KEPT


class Place:
    """A place that an execution has, from before its claim until its actor is done; see `Delivery.held`.

    An execution with a place runs together with others, until it steps aside.

    Args:
        urgent: it is one of those that are kept for urgent executions.
    """

    def __init__(self, places: Places, *, urgent: bool = False) -> None:
        self._places = places
        self._urgent = urgent
        self._together = True

    def step_aside(self) -> None:
        """Leave the executions that run together."""
        if self._together:
            self._together = False
            self._places.isolation.leave()

    def leave(self) -> None:
        """Release the place for the next execution."""
        self.step_aside()
        if self._urgent:
            self._places.free_urgent()
        else:
            self._places.free_one()


Start = Callable[["Place | None"], None]


class Places:
    """Counts the places, and fills the free ones. Thread-safe.

    Args:
        begin: takes a chosen execution with its place.
        ahead: how many executions are claimed that no thread has begun.
    """

    def __init__(self, app: Application, begin: Callable[[Chosen, Place], None], ahead: Callable[[], int]) -> None:
        self.isolation = app.isolation
        self.admits: Callable[[Request], bool] = lambda _: True
        """Whether a request may run here now, as far as this process knows; if not, it waits, and is chosen."""
        self._app = app
        self._serving = app.writes.turns.serving
        self._begin = begin
        self._ahead = ahead
        self._changed = threading.Condition()
        self._threads = app.settings.threads
        self._taken = 0
        self._urgent = 0  # of those that are kept for urgent executions
        self._choosing = False
        self._again = False  # somebody has asked for a look while a choice was made
        self._waits = False  # executions are known to wait
        self._closed = False
        self._held: deque[Start] = deque()
        self._held_since = 0.0  # since when there have been some
        self._timer = 0.0  # when they will be looked at
        self._in_vain = 0  # how many choices in turn have found nothing, although something waits

    @property
    def capacity(self) -> int:
        """How many executions may be claimed now."""
        if self._app.writes.gates.limits_work:  # one that is claimed ahead would hold a slot, and not run
            return self._threads
        return self._threads + self._app.pace.ahead(self._threads)

    def give(self, request: Request, start: Start) -> None:
        """Give a new message a place, now or in a moment.

        Args:
            start: called with the place; or with None, if the message must wait as a row.
        """
        place, set_timer = None, False
        if request.options.lane is Lane.HIGH and (urgent := self._urgent_place(request)) is not None:
            start(urgent)
            return
        with self._changed:
            if self._waits or self._closed or self.isolation.wanted or not self._may_run(request):
                pass
            elif not self._held and self._taken < self.capacity:
                if self.isolation.enter():
                    self._taken += 1
                    place = Place(self)
            elif self._app.pace.short:
                now = time.monotonic()
                if not self._held:
                    self._held_since = now
                self._held.append(start)
                if now < self._timer:
                    return
                self._timer, set_timer = now + HOLD_SECONDS, True
        if set_timer:
            self._app.waking.later(HOLD_SECONDS, self._let_go)
            return
        self._let_go()  # they came before
        start(place)

    def _urgent_place(self, request: Request) -> Place | None:
        """A place that is kept for urgent executions, where a new one would wait for another."""
        with self._changed:
            would_wait = self._waits or self._held or self._taken >= self.capacity
            if not would_wait or self._closed or self.isolation.wanted or not self._may_run(request):
                return None
            if self._urgent >= kept_for_urgent(self._threads) or not self.isolation.enter():
                return None
            self._urgent += 1
            return Place(self, urgent=True)

    def free_urgent(self) -> None:
        """One of the places that are kept for urgent executions is free again."""
        with self._changed:
            self._urgent -= 1
            self._changed.notify_all()

    def _let_go(self) -> None:
        """Have the messages wait as rows that were held for too long, or because of what is not so any more."""
        with self._changed:
            if not self._held:
                return
            left = HOLD_SECONDS - (time.monotonic() - self._held_since)
            waits = self._waits or self.isolation.wanted or not self._app.pace.short
            if left > 0 and not waits:
                if time.monotonic() >= self._timer:
                    self._timer = self._held_since + HOLD_SECONDS
                    self._app.waking.later(left, self._let_go)
                return
            self._waits = True
            starts, self._held = self._held, deque()
        for start in starts:
            start(None)

    def _may_run(self, request: Request) -> bool:
        return self._serving.takes(*_served_as(request)) and self.admits(request)

    def refuses(self, request: Request) -> bool:
        """Whether this process is known not to serve it, so that it waits for another."""
        return self._serving.refuses(*_served_as(request))

    def free_one(self) -> None:
        """A place is free again."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()
            held = bool(self._held)
            if not held:
                if not self._waits or self._choosing:
                    return
                capacity = self.capacity
                few = (capacity - self._taken) * BATCH < capacity
                if few and self._app.pace.short and self._ahead():
                    return
        if held:
            self._serve()
        else:
            self._choose()

    def _serve(self) -> None:
        """Give free places to the messages that are held."""
        while True:
            with self._changed:
                if not self._held or self._waits or self._closed or self._taken >= self.capacity:
                    break
                if not self.isolation.enter():
                    break
                self._taken += 1
                start = self._held.popleft()
            start(Place(self))
        self._let_go()

    def somebody_waits(self) -> None:
        """An execution waits as a row, that a message brought."""
        if self._waits:
            self._choose()  # its queue may be among those that are known; if not, it is found in a moment
        else:
            self.look()

    def look(self, *, wake: bool = False) -> None:
        """Choose executions for the free places, also of queues that have become ready.

        Args:
            wake: also of those in which something has become due.
        """
        self._app.writes.turns.forget()
        self._choose(wake=wake)

    def _choose(self, *, wake: bool = False) -> None:
        with self._changed:
            if self._choosing:
                self._again = True
                return
            room = self.capacity - self._taken
            if room <= 0 or self._closed or not self.isolation.enter(room):
                self._waits = True  # for all that is known
                return
            self._choosing = True
            self._taken += room
        try:
            self._app.claimer.submit(self._app.writes.choose, Look(room, wake), partial(self._chosen, room))
        except WriterClosed as closed:
            self._chosen(room, None, closed)

    def close(self) -> None:
        """Give no more places."""
        with self._changed:
            self._closed = True
            self._held.clear()  # the broker has them still

    @property
    def full(self) -> bool:
        """Whether no place is free."""
        return self._taken >= self.capacity

    @property
    def closed(self) -> bool:
        """Whether no more places are given."""
        return self._closed

    def wait(self, seconds: float) -> bool:
        """Wait until no place is taken. Returns False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._taken or self._urgent), seconds)

    def _chosen(self, room: int, choice: Choice | None, error: Exception | None) -> None:
        if choice is None:
            if not isinstance(error, WriterClosed):
                self._app.episodes.tell("What waits cannot be chosen", "it is tried again", error=error)
            choice = Choice([], more=True)
        free = room - len(choice.chosen)
        with self._changed:
            self._choosing = False
            self._taken -= free
            self._waits = choice.more or self._again
            again, self._again = self._again or (choice.more and free > 0), False
            self._in_vain = self._in_vain + 1 if choice.more and not choice.chosen else 0
            self._changed.notify_all()
        self.isolation.leave(free)
        if choice.chosen:
            self._app.metrics.chosen(len(choice.chosen))
        for chosen in choice.chosen:
            self._begin(chosen, Place(self))
        self._serve()
        if again and error is None:
            if choice.chosen or not choice.more:
                self._choose()
            else:
                pause = doubled(AGAIN_SECONDS, MOST_AGAIN_SECONDS, self._in_vain - 1)
                self._app.waking.later(pause, self.look)


def _served_as(request: Request) -> tuple[int, Identity]:
    """The lane and the program, by which a process serves it."""
    return lane_of(request.options).number, Identity(request.program_id, request.tenant)
