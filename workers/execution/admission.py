"""Executions are claimed before a thread has them.

A thread that claims for itself sleeps until the commit, and to wake it is much of what a short job costs. So the
claim is handed to the writer when the message comes, and what it came to goes to a thread. There are as many slots
as threads, and a few more: what is claimed is run at once, or next. What finds no slot stays unclaimed, for whatever
worker has time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from dspex import ExecuteProgram, Usage
from dspex.errors import DspexError
from store import executions
from store.database.identity import Identity
from store.executions import Claim, Request
from workers.application.in_flight import Isolation
from workers.application.wiring import Application
from workers.brokers.delivery import Delivery, Disposition, Source
from workers.brokers.settlement import ack_early, handled
from workers.brokers.work_queue import Item, WorkQueue
from workers.execution.attempt import Attempt
from workers.execution.completion import end
from workers.execution.request import request_of
from workers.execution.taken import Taken
from workers.persistence.group_commit import WriterClosed
from workers.security.authorization import allows
from workers.security.request import Received, receive

logger = logging.getLogger(__name__)

QUICK, CHANGES, EXECUTIONS = 0, 5, 10
"""The priorities: queries, cancels and what else is quick; what builds a program or goes through many rows; runs."""
CHANGE_THREADS = 4
QUICK_THREADS = 4
"""Threads beside those of executions, which others have for themselves: whatever runs, they are handled."""

RESERVE = 8
"""For so many threads one execution more is claimed: whoever has ended one need not wait for the claim of the next."""


class Slot:
    """What the message of an execution holds from before its claim until its actor has done with it.

    Attributes:
        received: the command, once it is known who asks.
        taken: the claim; None: the handler is to claim, and says what is wrong.
    """

    def __init__(self, intake: Intake, isolation: Isolation) -> None:
        self.received: Received[ExecuteProgram] | None = None
        self.taken: Taken | None = None
        self._intake = intake
        self._isolation = isolation
        self._together = False

    def join_others(self) -> bool:
        """Be among the executions that run together, unless one runs alone. Returns whether it is."""
        self._together = self._isolation.enter()
        return self._together

    def step_aside(self) -> None:
        """Be no longer among them."""
        if self._together:
            self._together = False
            self._isolation.leave()

    def leave(self) -> None:
        """Give the slot to the next message."""
        self.step_aside()
        self._intake.free_slot()


class Intake(WorkQueue):
    """The queue of work of a process, which has executions claimed before they are in it.

    Attributes:
        threads: how many should take from it: some are left when as many executions run as may.
    """

    def __init__(self, app: Application) -> None:
        threads = app.settings.threads
        super().__init__({EXECUTIONS: threads, CHANGES: threads + CHANGE_THREADS})
        self.threads = threads + CHANGE_THREADS + QUICK_THREADS
        self._app = app
        self._changed = threading.Condition()
        self._slots = self._free = threads + threads // RESERVE
        self._unclaimed: deque[Item] = deque()
        self._closed = False
        app.isolation.when_wanted = self._hand_over
        app.in_flight.when_cancelled = self._end_cancelled

    def put(self, item: Item) -> None:
        """Put an item in: an execution when it is claimed, everything else at once."""
        if item.message.actor_name != ExecuteProgram.type:
            super().put(item)
            return
        with self._changed:
            if self._closed or not self._free:
                self._unclaimed.append(item)
                return
            self._free -= 1
        self._claim(item)

    def put_aside(self, item: Item, seconds: float) -> None:
        """See `WorkQueue.put_aside`. The slot that it had is left; it has another when it comes again."""
        item.message.held = None
        super().put_aside(item, seconds)

    def free_slot(self) -> None:
        """A slot is free: the next message has it."""
        with self._changed:
            if self._closed or not self._unclaimed:
                self._free += 1
                self._changed.notify_all()
                return
            item = self._unclaimed.popleft()
        self._claim(item)

    def forget(self, source: Source) -> list[Item]:
        """See `WorkQueue.forget`. What is claimed stays: when its message comes again, that is told so."""
        with self._changed:
            unclaimed, self._unclaimed = self._unclaimed, deque()
            self._unclaimed.extend(item for item in unclaimed if item.message.source is not source)
        dropped = self.take_out(lambda item: item.message.source is source and _attempt_of(item) is None)
        for item in dropped:
            _leave(item)
        return dropped

    def has_unclaimed(self) -> bool:
        """Whether executions wait here for a slot: then their queue is not empty either."""
        return bool(self._unclaimed)

    def close(self) -> None:
        """Have nothing claimed any more, and give back what is claimed and not begun."""
        with self._changed:
            self._closed = True
        self._hand_over()

    def wait(self, seconds: float) -> bool:
        """Wait until all that was claimed has been run, or is given back. Returns whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._slots, seconds)

    def _claim(self, item: Item) -> None:
        app, message = self._app, item.message.kwargs
        slot = item.message.held = Slot(self, app.isolation)
        try:
            received = slot.received = receive(app.principals, message["envelope"], message["origin"])
            request = request_of(received)
            app.callbacks.check(request.tenant, request.callback)
            # What is denied is the handler's to tell, so that the audit has one line of it.
            reply_to = message["origin"].reply_to
            checked = app.direct_replies.is_checked(reply_to)
            if checked and allows(received.principal, ExecuteProgram) and slot.join_others():
                app.claimer.submit(app.writes.claim, request, partial(self._claimed, item, slot, request))
                return
        except Exception as error:  # noqa: BLE001 - the handler meets it too, and tells
            logger.debug("Message %s is left to its handler: %s", item.message.message_id, error)
        slot.step_aside()
        super().put(item)

    def _claimed(self, item: Item, slot: Slot, request: Request, claim: Claim | None, error: Exception | None) -> None:
        try:
            if claim is None:
                logger.debug("Message %s is left to its handler: %s", item.message.message_id, error)
                slot.step_aside()
                return
            slot.taken = Taken(self._app, request, claim)
            if slot.taken.attempt is not None:
                # From here on the row and its lease stand for the message: a long run holds none unacked.
                item.message.settle(Disposition.ACK)
        finally:
            super().put(item)
        if self._app.isolation.wanted:
            self._hand_over()

    def _end_cancelled(self) -> None:
        """End what is claimed, not begun and cancelled: where every thread is busy for long, none would soon."""

        def is_cancelled(item: Item) -> bool:
            attempt = _attempt_of(item)
            return attempt is not None and self._app.in_flight.is_cancelled(attempt)

        for item in self.take_out(is_cancelled):
            if (attempt := _attempt_of(item)) is not None:
                try:
                    end(self._app, attempt, attempt.cancelled(Usage()))
                except WriterClosed:
                    logger.debug("Execution %s is ended by whoever has it next.", attempt.claimed.id)
                _leave(item)

    def _hand_over(self) -> None:
        """Give back what is claimed, and not begun, for any worker: that spends no attempt."""
        for item in self.take_out(lambda item: _attempt_of(item) is not None):
            if (attempt := _attempt_of(item)) is not None:
                self._app.in_flight.end(attempt)
                self._submit_hand_over(item, attempt.execution)

    def _submit_hand_over(self, item: Item, execution: Identity) -> None:
        def handed_over(_result: object, error: Exception | None) -> None:
            if error is not None:
                said = f"execution {execution.id}: {error}"
                self._app.episodes.tell("Executions were not given back, their leases end them", said)
            _leave(item)

        try:
            self._app.claimer.submit(self._app.writes.hand_over, execution, handed_over)
        except WriterClosed as closed:
            handed_over(None, closed)


@contextmanager
def admitted(app: Application, received: Received[ExecuteProgram]) -> Generator[Taken]:
    """Beside other executions, with the claim: it was made ahead, or is made here.

    Raises:
        DspexError: of the callback, or of the database: it cannot be claimed.
    """
    slot = slot_of(handled())
    if slot is not None and slot.taken is not None:
        yield slot.taken
        slot.step_aside()
        return
    request = request_of(received)
    _check_callback(app, request)
    with app.isolation.together():
        taken = Taken(app, request, app.claimer.call(app.writes.claim, request))
        if taken.attempt is not None:
            ack_early()
        yield taken


def _check_callback(app: Application, request: Request) -> None:
    """Refuse a callback that cannot be. One that was taken stays: the relay sends it again, whatever is set by now."""
    try:
        app.callbacks.check(request.tenant, request.callback)
    except DspexError:
        with app.read(request.tenant) as connection:
            found = executions.get(connection, [request.id], tenant=request.tenant)
        if not found or found[0].callback != request.callback:
            raise


def slot_of(delivery: Delivery | None) -> Slot | None:
    """The slot that a message has among the executions; others have none."""
    held = None if delivery is None else delivery.held
    return held if isinstance(held, Slot) else None


def _attempt_of(item: Item) -> Attempt | None:
    """What was claimed for an item."""
    slot = slot_of(item.message)
    return None if slot is None or slot.taken is None else slot.taken.attempt


def _leave(item: Item) -> None:
    slot = slot_of(item.message)
    if slot is not None:
        slot.leave()
