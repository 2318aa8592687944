"""Claims executions before a thread takes them.

A thread that claims by itself sleeps until the commit, and waking it is a large part of the cost of a short job. So the
claim is submitted when the message comes, and the claimed execution goes to a thread. There are a few more slots than
threads, so a claimed execution runs at once or next. Without a free slot, an execution stays unclaimed, for any worker
that has time.
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
"""The priorities: quick commands such as queries and cancels; those that build a program or go through many rows;
executions.
"""
CHANGE_THREADS = 4
QUICK_THREADS = 4
"""Threads that are reserved for each of the two other priorities, so that executions cannot delay them."""

RESERVE = 8
"""One extra execution is claimed per so many threads, so that a thread need not wait for its next claim."""


class Slot:
    """A message for an execution holds a slot from before the claim until its actor is done.

    Attributes:
        received: the command, once its principal is known.
        taken: the result of the claim; None: the handler must claim, and report errors.
    """

    def __init__(self, intake: Intake, isolation: Isolation) -> None:
        self.received: Received[ExecuteProgram] | None = None
        self.taken: Taken | None = None
        self._intake = intake
        self._isolation = isolation
        self._together = False

    def join_others(self) -> bool:
        """Join the executions that run together. Returns False if one runs alone."""
        self._together = self._isolation.enter()
        return self._together

    def step_aside(self) -> None:
        """Leave the executions that run together."""
        if self._together:
            self._together = False
            self._isolation.leave()

    def leave(self) -> None:
        """Release the slot for the next message."""
        self.step_aside()
        self._intake.free_slot()


class Intake(WorkQueue):
    """The work queue of a process. It claims executions before it queues them.

    Attributes:
        threads: how many threads should take from it. Some are left when all slots of executions are in use.
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
        """Add an item: an execution after its claim, everything else at once."""
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
        """See `WorkQueue.put_aside`. Releases the item's slot; it gets another one when it returns."""
        item.message.held = None
        super().put_aside(item, seconds)

    def free_slot(self) -> None:
        """Give a free slot to the next message."""
        with self._changed:
            if self._closed or not self._unclaimed:
                self._free += 1
                self._changed.notify_all()
                return
            item = self._unclaimed.popleft()
        self._claim(item)

    def forget(self, source: Source) -> list[Item]:
        """See `WorkQueue.forget`. Claimed executions stay; their messages, delivered again, will find them claimed."""
        with self._changed:
            unclaimed, self._unclaimed = self._unclaimed, deque()
            self._unclaimed.extend(item for item in unclaimed if item.message.source is not source)
        dropped = self.take_out(lambda item: item.message.source is source and _attempt_of(item) is None)
        for item in dropped:
            _leave(item)
        return dropped

    def has_unclaimed(self) -> bool:
        """Whether executions wait here for a slot, so that their RabbitMQ queue is not empty either."""
        return bool(self._unclaimed)

    def close(self) -> None:
        """Claim no more, and give back the claims that have not begun."""
        with self._changed:
            self._closed = True
        self._hand_over()

    def wait(self, seconds: float) -> bool:
        """Wait until every claim has been run or given back. Returns False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free == self._slots, seconds)

    def _claim(self, item: Item) -> None:
        app, message = self._app, item.message.kwargs
        slot = item.message.held = Slot(self, app.isolation)
        try:
            received = slot.received = receive(app.principals, message["envelope"], message["origin"])
            request = request_of(received)
            app.callbacks.check(request.tenant, request.callback)
            # The handler reports denials, so that the audit log has one line for each.
            reply_to = message["origin"].reply_to
            checked = app.direct_replies.is_checked(reply_to)
            if checked and allows(received.principal, ExecuteProgram) and slot.join_others():
                claimed = partial(self._claimed, item, slot, request)
                app.claimer.submit(app.writes.claim, request, claimed, app.may_gather)
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
                # From here on, the row and its lease replace the message, so a long run keeps no message unacked.
                item.message.settle(Disposition.ACK)
        finally:
            super().put(item)
        if self._app.isolation.wanted:
            self._hand_over()

    def _end_cancelled(self) -> None:
        """End cancelled executions that are claimed and not begun, as all threads may be busy for long."""

        def is_cancelled(item: Item) -> bool:
            attempt = _attempt_of(item)
            return attempt is not None and self._app.in_flight.is_cancelled(attempt)

        for item in self.take_out(is_cancelled):
            if (attempt := _attempt_of(item)) is not None:
                try:
                    end(self._app, attempt, attempt.cancelled(Usage()))
                except WriterClosed:
                    logger.debug("Execution %s will be ended by the next worker that claims it.", attempt.claimed.id)
                _leave(item)

    def _hand_over(self) -> None:
        """Give claims that have not begun back, for any worker. This spends no attempt."""
        for item in self.take_out(lambda item: _attempt_of(item) is not None):
            if (attempt := _attempt_of(item)) is not None:
                self._app.in_flight.end(attempt)
                self._submit_hand_over(item, attempt.execution)

    def _submit_hand_over(self, item: Item, execution: Identity) -> None:
        def handed_over(_result: object, error: Exception | None) -> None:
            if error is not None:
                said = f"execution {execution.id}: {error}"
                self._app.episodes.tell("Executions could not be given back; their leases run out", said)
            _leave(item)

        try:
            self._app.claimer.submit(self._app.writes.hand_over, execution, handed_over)
        except WriterClosed as closed:
            handed_over(None, closed)


@contextmanager
def admitted(app: Application, received: Received[ExecuteProgram]) -> Generator[Taken]:
    """Join the executions that run together, with the claim that was made ahead, or is made here.

    Raises:
        DspexError: it cannot be claimed, because of its callback or the database.
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
    """Refuse an invalid callback, unless it is in the row, and so was accepted before."""
    try:
        app.callbacks.check(request.tenant, request.callback)
    except DspexError:
        with app.read(request.tenant) as connection:
            found = executions.get(connection, [request.id], tenant=request.tenant)
        if not found or found[0].callback != request.callback:
            raise


def slot_of(delivery: Delivery | None) -> Slot | None:
    """The slot of a message; None for a message that is not for an execution."""
    held = None if delivery is None else delivery.held
    return held if isinstance(held, Slot) else None


def _attempt_of(item: Item) -> Attempt | None:
    """The attempt that was claimed for an item."""
    slot = slot_of(item.message)
    return None if slot is None or slot.taken is None else slot.taken.attempt


def _leave(item: Item) -> None:
    slot = slot_of(item.message)
    if slot is not None:
        slot.leave()
