"""A command for a handler: with its principal, reply address and context."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from dspex.contract.commands import Command
from dspex.contract.envelope import NO_CONTEXT, Context, Envelope
from dspex.errors import Denied, ForbiddenReplyQueue
from workers.brokers.encoding import Origin
from workers.security.audit import Denial, audit
from workers.security.authorization import Principal
from workers.security.principals import Principals
from workers.security.reply_queues import checked

C = TypeVar("C", bound=Command, covariant=True)


@dataclass(frozen=True)
class Received(Generic[C]):
    """A command that was received.

    Attributes:
        answered: whether the sender waits for the answer.
        reply_to, correlation_id: the queue for a later answer (in the stored form of `reply_queues`), and the id that
    matches it.
        context: the trace and the extensions that are copied to answers and events.
        requested_at: the time that the message gives.
    """

    command: C
    principal: Principal
    source: str
    answered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None
    context: Context = NO_CONTEXT
    requested_at: datetime | None = None

    @property
    def tenant(self) -> str:
        """The tenant whose entities the command is about."""
        return self.principal.tenant


def receive(principals: Principals, envelope: Envelope[Any], origin: Origin) -> Received[Any]:
    """Identify the sender of a command from a queue, and check its reply queue.

    Raises:
        Denied: the login may not act for the tenant.
        ForbiddenReplyQueue: answers may not go to the reply queue.
    """
    try:
        reply_to = checked(origin.reply_to, origin.user_id)
    except ForbiddenReplyQueue:
        _tell(principals, envelope, origin, "reply_to is not its sender's")
        raise
    if reply_to is not None and principals.is_system(origin.user_id):
        _tell(principals, envelope, origin, "the workers' own login asks nothing")
        raise Denied(f"user-id: '{origin.user_id}' is the workers' own login, which asks nothing: use another")
    return Received(
        command=envelope.data,
        principal=principals.of(origin.user_id, envelope.tenant),
        source=envelope.source,
        answered=reply_to is not None,
        reply_to=reply_to,
        correlation_id=origin.correlation_id,
        context=envelope.context,
        requested_at=envelope.time,
    )


def _tell(principals: Principals, envelope: Envelope[Any], origin: Origin, reason: str) -> None:
    tenant = principals.tenant_of(origin.user_id, envelope.tenant)
    audit.denied(Denial(envelope.type, origin.user_id or "nobody", tenant, reason), envelope.data.subject)
