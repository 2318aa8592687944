"""The table of an outbox, and how to add commands to it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    event,
    insert,
)
from sqlalchemy.orm import Session, scoped_session

from dspex.contract.commands import Command
from dspex.contract.envelope import wrap
from dspex.ids import uuid7
from dspex.outbox.statements import NOW

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session


class Outbox:
    """The outbox of a service. Create it beside the models; it opens no connection. Thread-safe.

    Args:
        metadata: the service's own (`Base.metadata`), so that its migrations create the table.
        source: the CloudEvents `source` of its commands, a URI reference such as `/orders`.
        name: of the table.

    Attributes:
        table: the rows to publish. `id` is the id of the message, `type` its type and routing key, `body` its envelope.
            `attempts` counts how often the broker refused it; `last_error` is the last reason.
    """

    def __init__(self, metadata: MetaData, *, source: str, name: str = "dspex_outbox") -> None:
        self.table = Table(
            name,
            metadata,
            Column("id", Uuid, primary_key=True),
            Column("type", String(255), nullable=False),
            Column("body", LargeBinary, nullable=False),
            Column("attempts", Integer, nullable=False),
            Column("last_error", Text),
            Column("inserted_at", DateTime(timezone=True), nullable=False),
            # When it is to be published; for a claimed row, when the claim expires.
            Column("due_at", DateTime(timezone=True), nullable=False, index=True),
        )
        self._source = source
        self._listeners: set[Callable[[], None]] = set()

    def add(
        self,
        session: Session | scoped_session[Session] | Connection,
        command: Command,
        *,
        traceparent: str | None = None,
    ) -> str:
        """Add a command, which is published once the caller's transaction has committed. Returns the message's id.

        The commit of a `Session` wakes the relays of this process; after the commit of a `Connection`, call `wake`.

        Args:
            traceparent: W3C Trace Context of the caller's span.

        Raises:
            MessageTooLarge, InvalidMessage: the message is over 1 MiB, or is invalid; nothing was added.
        """
        envelope = wrap(command, source=self._source, traceparent=traceparent, message_id=str(_increasing_id()))
        row = {"id": UUID(envelope.id), "type": envelope.type, "body": envelope.encode(), "attempts": 0}
        session.execute(insert(self.table).values(**row, inserted_at=NOW, due_at=NOW))
        if not isinstance(session, Connection):
            self._listen(session if isinstance(session, Session) else session())
        return envelope.id

    async def add_async(
        self,
        session: AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection,
        command: Command,
        *,
        traceparent: str | None = None,
    ) -> str:
        """Like `add`, for asyncio. After the commit of an `AsyncConnection`, call `wake`."""
        from sqlalchemy.ext.asyncio import async_scoped_session  # needs greenlet, which a synchronous service may lack

        one = session() if isinstance(session, async_scoped_session) else session
        return await one.run_sync(self.add, command, traceparent=traceparent)

    def wake(self) -> None:
        """Have the relays of this process read the table now. A hint: otherwise they read it at their interval."""
        for listener in tuple(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each `wake`, and after commits."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        self._listeners.discard(listener)

    def _listen(self, session: Session) -> None:
        session.info[self] = True
        if not event.contains(session, "after_commit", self._after_commit):
            event.listen(session, "after_commit", self._after_commit)

    def _after_commit(self, session: Session) -> None:
        # Also called for savepoints, after which nobody else can see the rows yet.
        if not session.in_nested_transaction() and session.info.pop(self, False):
            self.wake()


_last = threading.local()


def _increasing_id() -> UUID:
    """A UUIDv7 above the last one of this thread, within a millisecond too (RFC 9562, section 6.2, method 2)."""
    number = max(uuid7().int, getattr(_last, "number", 0) + 1 + secrets.randbits(16))
    _last.number = number
    return UUID(int=number)
