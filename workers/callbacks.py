"""Telling what an execution came to: its event, and the answer where one is waited for.

What is owed stands in the database (`store.callbacks`) since the execution ended. Here it is sent, and struck off when
the broker has confirmed; nobody waits for that. What fails is sent by the relay.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from uuid import UUID

from dspex import ExecutionCompleted, ExecutionFailed, ExecutionStatus, wrap
from dspex.client import MAX_ANSWER_BYTES
from dspex.errors import MessageTooLarge, PublishError, Unroutable
from dspex.events import Event, ExecutionCancelled, Reply
from dspex.topology import EVENTS_EXCHANGE
from store.executions import Execution, Finish
from workers.application import EVENT_MARGIN_BYTES, SOURCE, Application
from workers.handlers.views import execution_view
from workers.writer import WriterClosed

logger = logging.getLogger(__name__)

Ended = ExecutionCompleted | ExecutionFailed | ExecutionCancelled


def announce(app: Application, execution: Execution) -> None:
    """Send what is owed for an execution: its event, and its answer."""
    due = _Due(app, execution.id, execution.lock_version, 2 if execution.reply_to else 1)
    _send_event(app, due, event_of(execution, execution.attempt), execution.traceparent)
    if execution.reply_to:
        answer = Reply(answer=execution_view(execution).model_dump(mode="json"))
        due.send(
            answer,
            exchange="",
            routing_key=execution.reply_to,
            correlation_id=execution.correlation_id,
            max_bytes=MAX_ANSWER_BYTES,
        )


def announce_end(app: Application, ended: Finish, attempt: int, traceparent: str | None) -> None:
    """Send what is owed for an execution that nobody waits for an answer of, without reading it."""
    _send_event(app, _Due(app, ended.id, ended.lock_version + 1, 1), event_of(ended, attempt), traceparent)


def event_of(ended: Finish | Execution, attempt: int) -> Ended:
    """The event that tells how an execution ended."""
    common = {
        "execution_id": ended.id,
        "program_id": ended.program_id,
        "attempt": attempt,
        "duration_ms": ended.duration_ms or 0.0,
        "usage": ended.usage,
    }
    if ended.status == ExecutionStatus.CANCELLED:
        return ExecutionCancelled.model_validate(common)
    if ended.error is None:
        return ExecutionCompleted.model_validate(common | {"outputs": dict(ended.outputs or {})})
    return ExecutionFailed.model_validate(common | {"error": ended.error})


def _send_event(app: Application, due: _Due, event: Ended, traceparent: str | None) -> None:
    limit = app.settings.max_message_bytes + EVENT_MARGIN_BYTES
    for told in (event, event.model_copy(update={"usage": event.usage.summary})):
        try:
            due.send(
                told,
                traceparent=traceparent,
                exchange=EVENTS_EXCHANGE,
                routing_key=told.type,
                mandatory=False,
                max_bytes=limit,
            )
        except MessageTooLarge as error:
            logger.warning("The event of execution %s: %s", event.execution_id, error)
        else:
            return
    due.confirm()  # no later try could send it


class _Due:
    """What is to be confirmed before nothing is owed any more for an execution. Confirms come in any thread.

    The ids of its messages are those of the end: however often it is sent, it is the same message.
    """

    def __init__(self, app: Application, execution_id: UUID, lock_version: int, messages: int) -> None:
        self._app = app
        self._execution_id = execution_id
        self._lock_version = lock_version
        self._messages = messages
        self._lock = threading.Lock()

    def send(
        self,
        event: Event,
        *,
        exchange: str,
        routing_key: str,
        max_bytes: int,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        mandatory: bool = True,
    ) -> None:
        message_id = f"{self._execution_id}.{self._lock_version}.{event.type.split('.')[1]}"
        envelope = wrap(event, source=SOURCE, traceparent=traceparent, message_id=message_id)
        body = envelope.encode(max_bytes)
        try:
            future = self._app.publisher.submit(
                body,
                exchange=exchange,
                routing_key=routing_key,
                message_id=message_id,
                correlation_id=correlation_id,
                mandatory=mandatory,
            )
        except PublishError as error:
            self._failed(error)
        else:
            future.add_done_callback(self._settled)

    def _settled(self, future: Future[None]) -> None:
        error = future.exception()
        # An answer that cannot be routed: nobody waits any more.
        if error is None or isinstance(error, Unroutable):
            self.confirm()
        else:
            self._failed(error)

    def confirm(self) -> None:
        with self._lock:
            self._messages -= 1
            done = self._messages == 0
        if done:
            try:
                self._app.writer.post(self._app.writes.callback_sent, self._execution_id)
            except WriterClosed:
                logger.info("The event of execution %s was sent, and will be again.", self._execution_id)

    def _failed(self, error: BaseException) -> None:
        logger.info("What is owed for execution %s will be sent later: %s", self._execution_id, error)
