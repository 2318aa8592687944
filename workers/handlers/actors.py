"""The Dramatiq actors: one for each command, named by its type; one that runs executions, one that rejects messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import dramatiq

from dspex import Envelope, MessageRejected
from dspex.amqp.publication import Publication
from dspex.amqp.topology import EXECUTIONS_QUEUE, PROGRAMS_QUEUE, queue_of
from dspex.contract.commands import Command
from dspex.contract.envelope import NO_CONTEXT, Context
from dspex.contract.events import EVENTS
from dspex.contract.requests import QUERIES
from dspex.errors import (
    DatabaseUnavailable,
    Denied,
    DspexError,
    ForbiddenReplyQueue,
    NotFound,
    PublishDenied,
    PublishError,
    TooLargeForBroker,
    Unroutable,
)
from store.database.failures import describe, passing
from store.rejections import Rejection
from workers.application.wiring import PATIENCE_SECONDS, Application
from workers.brokers import amqp
from workers.brokers.encoding import RECORD, REJECT, Origin
from workers.brokers.settlement import DeadLetter, PutAside, Requeue, handled
from workers.brokers.topology import DEAD_LETTERS
from workers.brokers.work_queue import CHANGES, EXECUTIONS
from workers.execution.completion import run, run_alone
from workers.execution.taken import RUN, Refused, ToRun
from workers.handlers.dispatch import dispatch
from workers.handlers.registry import REGISTRY
from workers.handlers.waits import room, wait_for_broker, wait_for_database, wait_for_dependency
from workers.outbound.encoder import Encoded, encode_answer, encode_error
from workers.outbound.error_details import detail_of
from workers.persistence.group_commit import WriterClosed
from workers.security.principals import as_it_came
from workers.security.reply_queues import answer_queue, direct
from workers.security.request import receive

logger = logging.getLogger(__name__)


def declare_actors(app: Application) -> None:
    """Declare the actors on the application's broker."""
    for command_type, registered in REGISTRY.items():
        _declare(app, command_type, queue_of(command_type), partial(_handle, app), registered.priority)
    _declare(app, RUN, EXECUTIONS_QUEUE, partial(_run, app), EXECUTIONS)
    _declare(app, REJECT, PROGRAMS_QUEUE, partial(_refuse, app), CHANGES)
    if not app.settings.embedded:
        _declare(app, RECORD, DEAD_LETTERS, partial(_reject, app), CHANGES)


def _declare(app: Application, name: str, queue_name: str, function: Callable[..., None], priority: int) -> None:
    def settled(**fields: Any) -> None:
        with _settling(app):
            function(**fields)

    declare = dramatiq.actor(
        actor_name=name,
        queue_name=queue_name,
        priority=priority,
        broker=app.broker,
        throws=(DeadLetter, Requeue, PutAside),
    )
    # At DEBUG, Dramatiq would log the whole content of each message.
    declare(settled).logger.setLevel(logging.INFO)


def _run(app: Application, *, item: ToRun) -> None:
    """Run what was claimed. It has no message: where it does not end, its lease runs out."""
    try:
        if item.taken.attempt is not None:
            run(app, item.taken.attempt)
        else:
            run_alone(app, item.taken.request)
    except WriterClosed as closed:
        logger.info("Execution %s is given back: %s", item.taken.request.id, closed)


def _handle(app: Application, *, envelope: Envelope[Command], body: bytes, origin: Origin) -> None:
    """Carry out a command. Every error settles the message: it is put aside, requeued, answered, or rejected."""
    try:
        delivery = handled()
        held = None if delivery is None else delivery.held
        received = held.received if isinstance(held, Refused) else receive(app.principals, envelope, origin)
        if origin.reply_to is not None and not app.direct_replies.readable(origin.reply_to):
            raise ForbiddenReplyQueue("reply_to: the broker knows nobody of this name")
        answer = dispatch(app, received)
    except (WriterClosed, DatabaseUnavailable, PutAside, Requeue):
        raise
    except Exception as error:  # noqa: BLE001 - it goes with the message
        if passing(error):
            raise DatabaseUnavailable(describe(error)) from None
        if isinstance(error, PublishError):
            app.episodes.tell("A message waits, as its event cannot be published", error)
            wait_for_broker(error)
        if isinstance(error, NotFound):
            tenant = app.principals.tenant_of(origin.user_id, envelope.tenant)
            wait_for_dependency(envelope.type, tenant, *room(app.settings))
        if not isinstance(error, DspexError):
            app.episodes.tell(
                f"Messages of type {envelope.type} fail unexpectedly",
                f"message {envelope.id}",
                level=logging.ERROR,
                error=error,
            )
            error = DspexError(f"{type(error).__name__}: see the worker's log")
        if _answered(app, origin, error, envelope.type, envelope.context):
            return
        _reject(
            app,
            error=error,
            body=body,
            body_size=len(body),
            message_id=envelope.id,
            message_type=envelope.type,
            context=envelope.context,
            origin=origin,
            said_tenant=envelope.tenant,
            tell=False,
        )
    if answer is not None:
        query = envelope.type in QUERIES
        context = envelope.context
        _answer(app, origin, lambda largest: encode_answer(answer, largest, query=query, context=context))


def _refuse(
    app: Application,
    *,
    error: DspexError,
    origin: Origin,
    message_type: str | None = None,
    context: Context = NO_CONTEXT,
    **fields: Any,
) -> None:
    """Reject a message that cannot be read. If it must not be read, answer the sender, if one waits."""
    if isinstance(error, Denied) and _answered(app, origin, error, message_type, context):
        return
    tell = not isinstance(error, Denied)
    _reject(app, error=error, origin=origin, message_type=message_type, context=context, tell=tell, **fields)


def _answered(app: Application, origin: Origin, error: DspexError, message_type: str | None, context: Context) -> bool:
    """Whether the sender gets the error as an answer, so that the message need not be recorded. Queries never are."""
    queue = _queue_of_answer(app, origin)
    if queue is None:
        return False
    query = message_type in QUERIES
    # A denial has an audit line, so it is not worth a connection.
    unsure = direct(queue) and not query and not isinstance(error, Denied)
    there = not unsure or amqp.is_there(app.settings.broker_url, queue)
    told = _answer(app, origin, lambda largest: encode_error(error, largest, context=context))
    return query or (there and told)


def _queue_of_answer(app: Application, origin: Origin) -> str | None:
    """The queue for the answer, or None."""
    queue = answer_queue(origin.reply_to, origin.user_id)
    try:
        return queue if queue is None or app.direct_replies.readable(queue) else None
    except PublishError:
        return None


def _answer(app: Application, origin: Origin, encode: Callable[[int], Encoded]) -> bool:
    """Answer the sender, if it waits and may be answered. Returns whether the answer was sent.

    Args:
        encode: encodes the answer in at most so many bytes.
    """
    queue = _queue_of_answer(app, origin)
    if queue is None:
        return False
    try:
        try:
            _send(app, queue, origin, encode(app.largest_answer))
        except TooLargeForBroker:
            _send(app, queue, origin, encode(app.largest_answer))  # by now the broker's limit is known
    except Unroutable:
        app.episodes.tell("Answers go nowhere, since nobody waits any more", f"queue {queue!r}", level=logging.INFO)
        return False
    except PublishError as error:
        # The command is done and stored, and waiting does not bring a permission.
        app.episodes.tell("An answer is not sent", error)
        if not isinstance(error, PublishDenied):
            wait_for_broker(error)
        app.metrics.answer_lost()
        return False
    return True


def _send(app: Application, queue: str, origin: Origin, answer: Encoded) -> None:
    if not answer.whole:
        app.episodes.tell("Answers are too large and are cut", f"to {queue!r}", level=logging.INFO)
    app.publisher.publish(
        Publication(
            answer.body,
            exchange="",
            routing_key=queue,
            message_id=answer.message_id,
            correlation_id=origin.correlation_id,
            mandatory=not direct(queue),
        )
    )


@contextmanager
def _settling(app: Application) -> Generator[None]:
    """Requeue the message if the worker stops; put it aside while the database or the broker is unavailable."""
    try:
        yield
    except DatabaseUnavailable as error:
        # The message itself may be fine, so it is not rejected.
        app.episodes.tell("Messages wait for the database", error)
        wait_for_database(error)
    except WriterClosed as error:
        app.episodes.tell("Messages are given back to their queues", error)
        raise Requeue(str(error)) from None
    except PublishError as error:
        app.episodes.tell("The rejection of a message cannot be published", error)
        wait_for_broker(error)
        raise DeadLetter(error.message) from None  # it is recorded


def _reject(
    app: Application,
    *,
    error: DspexError,
    body: bytes,
    body_size: int,
    message_id: str | None,
    message_type: str | None,
    origin: Origin,
    context: Context = NO_CONTEXT,
    said_tenant: str | None = None,
    tell: bool = True,
) -> NoReturn:
    """Record a message as rejected, publish the event, and dead-letter the message.

    Args:
        said_tenant: the tenant in the envelope.
        tell: whether to answer the sender, too, if it waits and may be answered.
    """
    tenant = app.principals.tenant_of(origin.user_id, said_tenant)
    if app.principals.is_system(origin.user_id):
        came, body = body, as_it_came(body, tenant)
        body_size -= len(came) - len(body)
    rejection = Rejection(
        queue=origin.queue,
        error_code=error.code,
        error_message=error.message,
        body=body,
        body_size=body_size,
        message_id=message_id,
        message_type=message_type,
        tenant=tenant,
        keep=app.principals.is_its_own(origin.user_id, said_tenant, event=message_type in EVENTS),
    )
    delivery = handled()
    if delivery is None or not delivery.recorded:
        app.writer.call(app.writes.reject, rejection, patience=PATIENCE_SECONDS)
        app.episodes.tell(f"Messages on {origin.queue} are rejected ({error.code})", error.message)
        app.metrics.message_rejected(error.code)
        if delivery is not None:
            delivery.recorded = True
    if message_type not in EVENTS:  # otherwise a binding of events to commands is an endless loop
        app.emit(
            MessageRejected(
                rejection_id=rejection.id,
                queue=origin.queue,
                error=detail_of(error),
                message_id=message_id,
                message_type=message_type,
            ),
            rejection.tenant,
            context,
        )
    if tell:
        _answer(app, origin, lambda largest: encode_error(error, largest, context=context))
    raise DeadLetter(error.message)
