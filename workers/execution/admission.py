"""Accepts executions: each message of one becomes a row before a thread has it, and is acked.

The row is running where this process has a free place for it, and no others wait; then it goes to a thread. Else it is
pending, and waits until a process chooses it (`workers.execution.places`). No message waits for a thread, but the few
that are answered with an error, or for an execution that has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dspex import ExecuteProgram, Usage
from dspex.errors import DspexError
from store import executions
from store.database.engine import READ_ONLY
from store.database.identity import Identity
from store.executions import Claim, Claimed, Request, Running, Waiting
from store.executions.choosing import Chosen, anything_ready
from workers.application.wiring import Application
from workers.brokers.delivery import Disposition
from workers.brokers.settlement import handled
from workers.brokers.work_queue import CHANGES, EXECUTIONS, URGENT, Item, WorkQueue
from workers.execution.attempt import Attempt
from workers.execution.completion import end
from workers.execution.places import Place, Places, kept_for_urgent
from workers.execution.request import request_of
from workers.execution.taken import Refused, Taken, ToRun
from workers.persistence.gates import may_begin
from workers.persistence.group_commit import WriterClosed
from workers.persistence.operations import Submission
from workers.security.authorization import allows
from workers.security.request import Received, receive

logger = logging.getLogger(__name__)

CHANGE_THREADS = 4
QUICK_THREADS = 4
"""Threads that are reserved for each of the two other priorities, so that executions cannot delay them."""

STALE_SECONDS = 1.0
"""After so many seconds, an execution that was claimed ahead and not begun is given back, for any worker."""


class Intake(WorkQueue):
    """The work queue of a process. It accepts executions, and queues what this process has claimed.

    Attributes:
        threads: how many threads should take from it. Some are left when all places of executions are taken.
        places: the places of executions.
    """

    def __init__(self, app: Application) -> None:
        threads = app.settings.threads
        both = threads + kept_for_urgent(threads)
        super().__init__({EXECUTIONS: threads, URGENT: both, CHANGES: both + CHANGE_THREADS})
        self.threads = both + CHANGE_THREADS + QUICK_THREADS
        self.places = Places(app, self._begin_chosen, lambda: self.waiting(EXECUTIONS) + self.waiting(URGENT))
        self.places.admits = self._admits
        self._app = app
        app.isolation.when_wanted = self._hand_over
        app.isolation.when_over = app.waking.look = self.places.look
        app.in_flight.when_cancelled = self._end_cancelled

    def _admits(self, request: Request) -> bool:
        writes = self._app.writes
        return may_begin(writes.gates, request) and not writes.turns.avoids(request.tenant, request.program_id)

    def put(self, item: Item) -> None:
        """Add an item. An execution is accepted first."""
        if item.message.actor_name != ExecuteProgram.type:
            super().put(item)
        elif not self.places.closed:  # else the broker delivers it again, to another process
            self._accept(item)

    def put_aside(self, item: Item, seconds: float) -> None:
        """See `WorkQueue.put_aside`. An execution is accepted anew when it returns."""
        item.message.held = None
        super().put_aside(item, seconds)

    def close(self) -> None:
        """Accept and choose no more, and give back the claims that have not begun."""
        self.places.close()
        for item in self.take_out(lambda item: isinstance(item, ToRun) and item.taken.attempt is None):
            _leave(item)  # it is to run alone, and not claimed
        self._hand_over()

    def wait(self, seconds: float) -> bool:
        """Wait until every claim has been run or given back. Returns False after the timeout."""
        return self.places.wait(seconds)

    def look_around(self) -> None:
        """Called each second: give back what has waited here for too long, and look for what waits elsewhere."""
        stale = self._take_unbegun(lambda attempt: attempt.age > STALE_SECONDS)
        for item in stale:
            self._app.pace.at_least(STALE_SECONDS)  # nothing more is claimed ahead of runs that are long
            self._give_back(item)
        if not self.places.full or self._anything_ready():
            self.places.look(wake=True)

    def _anything_ready(self) -> bool:
        with self._app.engine.connect().execution_options(**READ_ONLY) as connection:
            return anything_ready(connection)

    def _accept(self, item: Item) -> None:
        app, message = self._app, item.message.kwargs
        try:
            received = receive(app.principals, message["envelope"], message["origin"])
            request = request_of(received)
            app.callbacks.check(request.tenant, request.callback)
            # The handler reports denials, so that the audit log has one line for each.
            if app.direct_replies.is_checked(message["origin"].reply_to) and allows(received.principal, ExecuteProgram):
                self.places.give(request, partial(self._submit, item, received, request))
                return
        except Exception as error:  # noqa: BLE001 - the handler meets it too, and tells
            logger.debug("Message %s is left to its handler: %s", item.message.message_id, error)
        super().put(item)

    def _submit(self, item: Item, received: Received[ExecuteProgram], request: Request, place: Place | None) -> None:
        """Have the execution written down: as running, if it has a place."""
        app = self._app
        accepted = partial(self._accepted, item, received, request, place)
        submission = Submission(request, now=place is not None)
        try:
            app.claimer.submit(app.writes.claim, submission, accepted, app.may_gather)
        except WriterClosed as closed:
            accepted(None, closed)

    def _accepted(
        self,
        item: Item,
        received: Received[ExecuteProgram],
        request: Request,
        place: Place | None,
        claim: Claim | None,
        error: Exception | None,
    ) -> None:
        """The message is a row now, and acked; or it is left to its handler."""
        app = self._app
        if claim is None:
            logger.debug("Message %s is left to its handler: %s", item.message.message_id, error)
        else:
            taken = Taken(app, request, claim)
            if taken.attempt is not None and place is not None:
                app.metrics.accepted(running=True)
                self._begin(taken, place)
                item.message.settle(Disposition.ACK)  # last, as it wakes another thread
                return
            if isinstance(claim, Claimed | Waiting | Running):
                item.message.settle(Disposition.ACK)
        if place is not None:
            place.leave()
        match claim:
            case Waiting(new=new):
                _count(app, new=new)
                self._note_waiting(request, claim, accepted=place is None)
            case Running():
                app.metrics.redelivery()
                app.episodes.tell(
                    "Messages of executions that run elsewhere are dropped",
                    f"execution {request.id}",
                    level=logging.INFO,
                )
            case _:
                if claim is not None:
                    item.message.held = Refused(received, request, claim)
                super().put(item)

    def _note_waiting(self, request: Request, claim: Waiting, *, accepted: bool) -> None:
        app = self._app
        if app.own is not None:
            # It may have been left by another process.
            with suppress(WriterClosed):
                app.claimer.submit(app.writes.take_over, Identity(claim.id, request.tenant), _taken_over)
        if accepted and not self.places.refuses(request):
            self.places.somebody_waits()

    def _begin_chosen(self, chosen: Chosen, place: Place) -> None:
        self._begin(Taken(self._app, chosen.request, chosen.claim), place)

    def _begin(self, taken: Taken, place: Place) -> None:
        if taken.attempt is None:
            place.step_aside()  # it is to run alone
        super().put(ToRun(taken, place))
        if self._app.isolation.wanted or self.places.closed:
            self._hand_over()

    def _take_unbegun(self, condition: Callable[[Attempt], bool]) -> list[ToRun]:
        """Take the claimed executions out that meet the condition, and that no thread has begun."""

        def meets(item: Item) -> bool:
            return isinstance(item, ToRun) and item.taken.attempt is not None and condition(item.taken.attempt)

        return [item for item in self.take_out(meets) if isinstance(item, ToRun)]

    def _end_cancelled(self) -> None:
        """End cancelled executions that are claimed and not begun, as all threads may be busy for long."""
        for item in self._take_unbegun(self._app.in_flight.is_cancelled):
            if (attempt := item.taken.attempt) is not None:
                try:
                    end(self._app, attempt, attempt.cancelled(Usage()))
                except WriterClosed:
                    logger.debug("Execution %s will be ended by the next worker that claims it.", attempt.claimed.id)
                item.place.leave()

    def _hand_over(self) -> None:
        """Give claims that have not begun back, for any worker. This spends no attempt."""
        for item in self._take_unbegun(lambda _: True):
            self._give_back(item)

    def _give_back(self, item: ToRun) -> None:
        attempt = item.taken.attempt
        if attempt is None:
            return
        self._app.in_flight.end(attempt)
        execution = attempt.execution

        def given_back(_result: object, error: Exception | None) -> None:
            if error is not None:
                said = f"execution {execution.id}: {error}"
                self._app.episodes.tell("Executions could not be given back; their leases run out", said)
            item.place.leave()
            self.places.somebody_waits()

        try:
            self._app.claimer.submit(self._app.writes.hand_over, execution, given_back)
        except WriterClosed as closed:
            given_back(None, closed)


def claim_of(app: Application, received: Received[ExecuteProgram]) -> tuple[Request, Claim]:
    """The request of the message that this thread handles, and what came of it: it is accepted here, if it was not.

    Raises:
        DspexError: it cannot be accepted, because of its callback or the database.
    """
    delivery = handled()
    if delivery is not None and isinstance(delivery.held, Refused):
        return delivery.held.request, delivery.held.claim
    request = request_of(received)
    _check_callback(app, request)
    claim = app.claimer.call(app.writes.claim, Submission(request, now=False))
    if isinstance(claim, Waiting):
        _count(app, new=claim.new)
    return request, Taken(app, request, claim).claim


def _count(app: Application, *, new: bool) -> None:
    """Count an execution that waits."""
    if new:
        app.metrics.accepted(running=False)
    else:
        app.metrics.redelivery()


def _check_callback(app: Application, request: Request) -> None:
    """Refuse an invalid callback, unless it is in the row, and so was accepted before."""
    try:
        app.callbacks.check(request.tenant, request.callback)
    except DspexError:
        with app.read(request.tenant) as connection:
            found = executions.get(connection, [request.id], tenant=request.tenant)
        if not found or found[0].callback != request.callback:
            raise


def _leave(item: Item) -> None:
    if isinstance(item, ToRun):
        item.place.leave()


def _taken_over(_result: object, error: Exception | None) -> None:
    if error is not None:
        logger.warning("An execution that waits stays another process's: %s", error)
