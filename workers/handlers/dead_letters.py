"""The handlers for dead letters: failed executions and rejected messages.

Matches of a filter are processed once, newest first, in transactions of bounded size. Those that fail again meanwhile
are not processed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from dspex.amqp.publication import command_publication
from dspex.contract.dead_letters import DiscardExecutions, DiscardMessages, ReplayExecutions, ReplayMessages
from dspex.contract.envelope import decode_command
from dspex.contract.gates import Steering
from dspex.contract.queries import GetRejectedMessage, ListRejectedMessages
from dspex.contract.results import Affected, Page, RejectedMessageView
from dspex.contract.selections import Selection
from dspex.contract.status import DeadLetterStatus
from dspex.errors import Denied, DspexError, InvalidMessage, InvalidValues, Problem, PublishError
from dspex.model import MAX_PROBLEMS
from store import executions, rejections
from store.database.identity import Identity
from store.executions import MAX_REPLAYS
from store.rejections import RecordedRejection
from workers.application.wiring import Application
from workers.brokers.work_queue import CHANGES
from workers.handlers.registry import handles
from workers.handlers.selections import Find, chosen
from workers.outbound.serializers import page_of, rejected_message_view
from workers.security.authorization import EVERY_ROLE, OPERATORS, authorize, told_of
from workers.security.principals import on_behalf
from workers.security.request import Received

logger = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 50
"""How many messages are read and sent at a time, as each may have the largest size."""
MAX_MESSAGE_ID_BYTES = 255
"""The limit of the AMQP property. The envelope always has the id."""


@handles(ReplayExecutions, roles=OPERATORS, priority=CHANGES)
def replay_executions(app: Application, received: Received[ReplayExecutions]) -> Affected:
    """Replay failed executions: failed → pending. They wait in their queues."""
    by, tenant = received.principal.name, received.tenant

    def replay(ids: Sequence[UUID], connection: Connection) -> int:
        replayed = executions.replay(connection, ids, by=by, shard=app.writes.shard, tenant=tenant)
        if app.own is not None:
            mine = [Identity(id_, tenant) for id_ in ids]
            app.own.add(mine)
            app.writes.take_over(connection, mine)
        return replayed

    replayed = _change(app, received, executions.dead, replay)
    app.waking.look()
    return replayed


@handles(DiscardExecutions, roles=OPERATORS, priority=CHANGES)
def discard_executions(app: Application, received: Received[DiscardExecutions]) -> Affected:
    """Mark failed executions as no longer dead letters."""
    by, tenant = received.principal.name, received.tenant

    def discard(ids: Sequence[UUID], connection: Connection) -> int:
        return executions.discard(connection, ids, by=by, tenant=tenant)

    return _change(app, received, executions.dead, discard)


@handles(DiscardMessages, roles=OPERATORS, priority=CHANGES)
def discard_messages(app: Application, received: Received[DiscardMessages]) -> Affected:
    """Mark rejected messages as no longer dead letters."""

    def discard(ids: Sequence[UUID], connection: Connection) -> int:
        return rejections.discard(connection, ids, tenant=received.tenant)

    return _change(app, received, rejections.dead, discard)


@handles(ReplayMessages, roles=OPERATORS, priority=CHANGES)
def replay_messages(app: Application, received: Received[ReplayMessages]) -> Affected:
    """Send rejected messages again, unchanged. Each is marked when the broker has confirmed it.

    Raises:
        InvalidValues: some messages that were named cannot be sent. The others were sent.
        PublishError: the broker did not confirm all. Confirmed ones are marked.
    """
    count, refused, cursor = 0, list[Problem](), None
    for page in chosen(app, received, rejections.dead, MESSAGES_AT_ONCE):
        cursor = page.next_cursor
        with app.read(received.tenant) as connection:
            found = rejections.find(connection, page.items, tenant=received.tenant)
        sent = list[tuple[RecordedRejection, Future[None]]]()
        for rejection in found:
            try:
                if rejection.status != DeadLetterStatus.REPLAYED:
                    sent.append((rejection, _send(app, received, rejection)))
            except PublishError:
                _confirm(app, sent)
                raise
            except DspexError as reason:
                refused.append(Problem(str(rejection.id), reason.message))
        count += _confirm(app, sent)
    logger.info("%s: %d by %s, %d refused", received.command.type, count, received.principal.name, len(refused))
    if refused and received.command.ids is not None:
        told = refused[:MAX_PROBLEMS]
        if len(refused) > MAX_PROBLEMS:
            told.append(Problem("", f"and {len(refused) - MAX_PROBLEMS} more cannot be sent"))
        if count:
            told.append(Problem("", f"of the others, {count} were sent"))
        raise InvalidValues(told)
    return Affected(count=count, refused=len(refused), next_cursor=cursor)


@handles(GetRejectedMessage, roles=EVERY_ROLE)
def get_rejected_message(app: Application, received: Received[GetRejectedMessage]) -> RejectedMessageView:
    """Read one rejected message."""
    with app.read(received.tenant) as connection:
        return rejected_message_view(rejections.get(connection, received.command.rejection_id, tenant=received.tenant))


@handles(ListRejectedMessages, roles=EVERY_ROLE)
def list_rejected_messages(app: Application, received: Received[ListRejectedMessages]) -> Page[RejectedMessageView]:
    """Read a page of rejected messages."""
    asked = received.command
    with app.read(received.tenant) as connection:
        page = rejections.page(
            connection,
            status=asked.status,
            error_code=asked.error_code,
            queue=asked.queue,
            since=asked.since,
            until=asked.until,
            cursor=asked.cursor,
            limit=asked.limit,
            tenant=received.tenant,
        )
    return page_of(page, rejected_message_view, Page[RejectedMessageView])


def _change(
    app: Application, received: Received[Selection], find: Find, change: Callable[[Sequence[UUID], Connection], int]
) -> Affected:
    count, cursor = 0, None
    for page in chosen(app, received, find, MAX_REPLAYS):
        count += app.write(partial(change, page.items))
        cursor = page.next_cursor
    logger.info("%s: %d by %s", received.command.type, count, received.principal.name)
    return Affected(count=count, next_cursor=cursor)


def _send(app: Application, received: Received[ReplayMessages], rejection: RecordedRejection) -> Future[None]:
    """Publish a message again.

    With tenancy on, it is sent by the workers' login, which may do everything for any tenant. So the message must be
    for the principal's tenant, the principal must be allowed to give its command, and it must not be a replay itself.

    Raises:
        DspexError: the message cannot be sent. `PublishError`: the broker does not take messages.
    """
    if rejection.body_size > len(rejection.body):
        raise InvalidMessage(
            f"only {len(rejection.body)} of its {rejection.body_size} bytes were kept: publish it anew"
        )
    body, max_bytes = rejection.body, app.settings.max_message_bytes
    envelope = decode_command(body, max_bytes)
    authorize(received.principal, envelope.data)
    if isinstance(envelope.data, Selection):
        raise InvalidMessage(f"{envelope.type} is about dead letters itself: give the command anew")
    if isinstance(envelope.data, Steering):
        raise InvalidMessage(f"{envelope.type} is for all tenants from the workers' login: give the command anew")
    if app.principals.by_login is not None:
        if envelope.tenant is None:
            body = on_behalf(body, received.tenant)
            envelope = decode_command(body, max_bytes)
        if envelope.tenant != received.tenant:
            denied = Denied(f"tenant: '{received.principal.name}' belongs to '{received.tenant}'")
            told_of(received.principal, received.command, denied)
            raise denied
    fits = len(envelope.id.encode()) <= MAX_MESSAGE_ID_BYTES
    publication = command_publication(envelope, body)
    return app.publisher.submit(publication if fits else publication._replace(message_id=None))


def _confirm(app: Application, sent: Sequence[tuple[RecordedRejection, Future[None]]]) -> int:
    """Mark the messages that the broker has confirmed. Returns how many.

    Raises:
        PublishError: the error of the first message that was not confirmed.
    """
    failed = [error for _, future in sent if (error := future.exception()) is not None]
    confirmed = [rejection for rejection, future in sent if future.exception() is None]
    if confirmed:
        app.write(partial(rejections.replayed, sent=confirmed))
    if failed:
        raise failed[0]
    return len(confirmed)
