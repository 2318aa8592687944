"""The queue between the consumers' threads and those that run actors, in place of Dramatiq's own.

One sleeping thread is woken at a time; when it takes its item it wakes the next, if there is more to do. So jobs that
wait for something are taken by as many threads as there are, and short ones by the few that are awake already: to
wake one for each was much of what a short job cost. Go's scheduler wakes its threads in this way (runtime/proc.go,
"Worker thread parking/unparking").
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from workers.brokers.settlement import Delivery, Source


class Item(Protocol):
    """What Dramatiq's consumers put in: a message, with its actor's priority."""

    priority: int
    message: Delivery


class WorkQueue:
    """First in, first out, but items of priority 0 before all others. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urgent: deque[Item] = deque()
        self._others: deque[Item] = deque()
        self._asleep: list[threading.Lock] = []  # the last to fall asleep is the first to be woken
        self._waking = False

    def put(self, item: Item) -> None:
        """Put an item in."""
        with self._lock:
            (self._others if item.priority else self._urgent).append(item)
            self._wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Take an item out, waiting for one for at most `timeout` seconds; None: for ever.

        Raises:
            Empty: there was none.
        """
        with self._lock:
            if len(self) or not block:
                return self._take()
            bell = threading.Lock()
            bell.acquire()
            self._asleep.append(bell)
        try:
            bell.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            # Also where the thread ends here: nobody else would be woken.
            with self._lock:
                if bell in self._asleep:
                    self._asleep.remove(bell)
                else:
                    self._waking = False
        with self._lock:
            return self._take()

    def get_nowait(self) -> Item:
        """Take an item out. Raises `Empty` where there is none."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Nobody waits until all is done."""

    def forget(self, source: Source) -> list[Item]:
        """Drop what came from a source that is gone: it comes again. Returns what was dropped.

        Else it would run now and once more, and a queue whose threads are busy would grow with each reconnection.
        """
        return self.take_out(lambda item: item.message.source is source)

    def take_out(self, condition: Callable[[Item], bool]) -> list[Item]:
        """Take out all items that are so."""
        found: list[Item] = []
        with self._lock:
            for items in (self._urgent, self._others):
                for item in [items.popleft() for _ in range(len(items))]:
                    (found if condition(item) else items).append(item)
        return found

    def qsize(self) -> int:
        """How many items are in it."""
        return len(self)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def _take(self) -> Item:
        """The next item; whoever sleeps is woken for those behind it."""
        items = self._urgent or self._others
        if not items:
            raise Empty
        item = items.popleft()
        if len(self):
            self._wake()
        return item

    def _wake(self) -> None:
        if self._asleep and not self._waking:
            self._waking = True
            self._asleep.pop().release()
