"""The Dramatiq actors: one for each command, named by its type, and one that rejects what is no command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import dramatiq

from dspex import Envelope, ErrorDetail, ExecuteProgram, MessageRejected
from dspex.errors import DspexError, PublishError
from dspex.events import ProblemDetail
from dspex.topology import PROGRAMS_QUEUE, queue_of
from store.rejections import Rejection
from workers.application import Application
from workers.brokers.encoding import REJECT
from workers.brokers.settlement import DeadLetter, Requeue
from workers.handlers import HANDLERS
from workers.writer import WriterClosed

logger = logging.getLogger(__name__)

# A process takes from both queues; executions wait for LMs, what creates and builds programs goes first.
_PRIORITY = {ExecuteProgram.type: 10}


def declare_actors(app: Application) -> None:
    """Declare the actors on the application's broker."""
    for command_type, handler in HANDLERS.items():
        _declare(app, command_type, queue_of(command_type), _guarded(app, handler))

    def reject(**details: Any) -> None:
        with _settling():
            _reject(app, **details)

    _declare(app, REJECT, PROGRAMS_QUEUE, reject)


def _declare(app: Application, name: str, queue_name: str, function: Callable[..., None]) -> None:
    declare = dramatiq.actor(
        actor_name=name,
        queue_name=queue_name,
        priority=_PRIORITY.get(name, 0),
        broker=app.broker,
        throws=(DeadLetter, Requeue),
    )
    declare(function)


def _guarded(app: Application, handler: Callable[[Application, Envelope[Any]], None]) -> Callable[..., None]:
    """A handler whose every error settles its message: given back, or rejected with the reason on record."""

    def handle(envelope: Envelope[Any], body: bytes, queue: str) -> None:
        with _settling():
            try:
                handler(app, envelope)
            except (WriterClosed, PublishError):
                raise
            except Exception as error:
                if not isinstance(error, DspexError):
                    logger.exception("Message %s failed unexpectedly.", envelope.id)
                    error = DspexError(f"{type(error).__name__}: see the worker's log")
                _reject(
                    app,
                    error=error,
                    body=body,
                    body_size=len(body),
                    message_id=envelope.id,
                    message_type=envelope.type,
                    queue=queue,
                )

    return handle


@contextmanager
def _settling() -> Generator[None]:
    """Gives the message back when it could not be handled now: the worker stops, or the broker does not confirm."""
    try:
        yield
    except (WriterClosed, PublishError) as error:
        logger.warning("A message is given back to its queue: %s", error)
        raise Requeue(str(error)) from None


def _reject(
    app: Application,
    *,
    error: DspexError,
    body: bytes,
    body_size: int,
    message_id: str | None,
    message_type: str | None,
    queue: str,
) -> None:
    """Record a message as rejected, tell, and dead-letter it."""
    rejection = Rejection(
        queue=queue,
        error_code=error.code,
        error_message=error.message,
        body=body,
        body_size=body_size,
        message_id=message_id,
        message_type=message_type,
    )
    app.writer.call(app.writes.reject, rejection)
    logger.warning("A message on %s was rejected (%s): %s", queue, error.code, error.message)
    problems = tuple(ProblemDetail(field=p.field, message=p.message) for p in getattr(error, "problems", ()))
    app.emit(
        MessageRejected(
            rejection_id=rejection.id,
            queue=queue,
            error=ErrorDetail(code=error.code, message=error.message, problems=problems),
            message_id=message_id,
            message_type=message_type,
        )
    )
    raise DeadLetter(error.message)
