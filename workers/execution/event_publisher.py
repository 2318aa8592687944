"""Publishes the end of an execution: its event, and the answer if a sender waits for one.

Both have been in the event outbox (`store.event_outbox`) since the end of the execution. They are sent from here
without waiting, and the row is deleted when the broker has confirmed them. If that fails, the relay sends them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from dspex.amqp.publication import Publication, event_publication
from dspex.contract.envelope import Context
from dspex.errors import PublishDenied, PublishError, Unroutable
from store.event_outbox import OutboxEntry
from store.executions import Execution, Finish
from workers.application.wiring import Application
from workers.execution.attempt import Attempt
from workers.outbound.encoder import encode_answer, encode_event
from workers.outbound.ended_event import Ended, event_of
from workers.outbound.serializers import execution_view
from workers.persistence.group_commit import WriterClosed
from workers.security.reply_queues import kept_queue

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.0001
"""How long the publisher's thread has Python to send an answer, before its event is encoded."""


def announce(app: Application, execution: Execution) -> None:
    """Send the event in the outbox of an execution, and its answer."""
    entry = OutboxEntry(execution.id, execution.lock_version, execution.tenant)
    ended = event_of(execution, execution.attempt, execution.metadata)
    announcement = Announcement(app, entry, partial(_event, app, ended, entry, _context(execution)))
    announcement.encode()
    announcement.send(execution)


def tell_end(app: Application, execution: Execution) -> None:
    """Count an execution that no worker of this process ran, and has ended here, and send its event."""
    if app.own is not None:
        app.own.deliver([execution.identity])
    app.metrics.execution_ended(execution.status, None if execution.error is None else execution.error.code)
    announce(app, execution)


def prepared(app: Application, ended: Finish, attempt: Attempt) -> Announcement:
    """Prepare the announcement of an end with its event. An answer is made later, from the row."""
    claimed = attempt.claimed
    event = event_of(ended, ended.attempt or claimed.attempt, claimed.metadata)
    entry = OutboxEntry(ended.id, ended.lock_version + 1, ended.tenant)
    context = Context(attempt.request.traceparent, claimed.extensions)
    announcement = Announcement(app, entry, partial(_event, app, event, entry, context))
    if not (ended.answered and app.writer.idle):
        announcement.encode()  # here, for the writer's thread has all ends to tell
    return announcement


def _context(execution: Execution) -> Context:
    return Context(execution.traceparent, execution.extensions)


def _event(app: Application, event: Ended, entry: OutboxEntry, context: Context) -> Publication:
    """Encode an event. Event and answer have the id of the end, so repeated ones are the same message."""
    tenant = entry.tenant
    message_id = f"{event.execution_id}.{entry.lock_version}"
    encoded = encode_event(
        event,
        tenant,
        app.largest_answer,
        whole=app.largest_event,
        message_id=message_id,
        context=context,
    )
    if not encoded.whole:
        app.episodes.tell("Events are too large and are sent reduced", f"execution {event.execution_id}")
    return event_publication(encoded.body, tenant, event.type, message_id)


def _answer(execution: Execution, reply_to: str, largest: int) -> Publication:
    message_id = f"{execution.id}.{execution.lock_version}.reply"
    view, context = execution_view(execution), _context(execution)
    body = encode_answer(view, largest, query=False, message_id=message_id, context=context).body
    return Publication(body, "", reply_to, message_id, execution.correlation_id)


class Announcement:
    """The messages of one end, until all are confirmed. Confirms may come in any thread.

    Args:
        event: encodes the event. It is called once: by `encode`, or when the answer has been sent.
    """

    def __init__(self, app: Application, entry: OutboxEntry, event: Callable[[], Publication]) -> None:
        self._app = app
        self._entry = entry
        self._event = event
        self._encoded = False
        self._missing = 1
        self._failed = False
        self._lock = threading.Lock()

    def encode(self) -> None:
        """Encode the event now."""
        encoded = self._event()
        self._event, self._encoded = lambda: encoded, True

    def send(self, answered: Execution | None = None) -> None:
        """Send the messages without waiting. If too many are unconfirmed, the relay sends them later.

        Args:
            answered: the ended execution, if a sender waits for the answer, which is sent first.
        """
        self._app.notifications.ended(self._entry.execution_id)
        answer = None
        if answered is not None and answered.reply_to:
            queue = kept_queue(answered.reply_to)
            try:
                readable = queue is not None and self._app.direct_replies.readable(queue)
            except PublishError as error:
                self._app.episodes.tell("Events of executions will be sent later", error)
                return
            if queue is None or not readable:
                self._app.episodes.tell(
                    "Answers are not sent, since reply_to is not their senders'", f"execution {answered.id}"
                )
            else:
                answer = _answer(answered, queue, self._app.largest_answer)
                self._missing += 1
        if not self._app.unconfirmed.acquire(blocking=False):
            return
        if answer is not None:
            self._submit(answer, self._answer_confirmed)
            if not self._encoded:
                time.sleep(PAUSE_SECONDS)  # the publisher's thread would wait for this one
        self._submit(self._event(), self._confirmed)

    def _submit(self, message: Publication, confirmed: Callable[[Future[None]], None]) -> None:
        try:
            future = self._app.publisher.submit(message)
        except PublishError as error:
            self._settled(error)
        else:
            future.add_done_callback(confirmed)

    def _confirmed(self, future: Future[None]) -> None:
        self._settled(future.exception())

    def _answer_confirmed(self, future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, PublishDenied):
            # It would fail again; the client will look the execution up.
            self._app.episodes.tell("An answer is not sent", error)
            self._app.metrics.answer_lost()
            error = None
        self._settled(None if isinstance(error, Unroutable) else error)  # Unroutable: nobody waits any more

    def _settled(self, error: BaseException | None) -> None:
        if error is not None:
            self._app.episodes.tell("Events of executions will be sent later", error)
            self._failed = True
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        self._app.unconfirmed.release()
        if self._failed:
            return
        self._app.metrics.event_sent()
        try:
            self._app.writer.post(self._app.writes.event_sent, self._entry)
        except WriterClosed:
            logger.info("The event of execution %s was sent, and will be sent again.", self._entry.execution_id)
