"""A command as a handler gets it: with who asks, and what came with its message."""

from __future__ import annotations

from dataclasses import dataclass
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
    """A command and its circumstances.

    Attributes:
        answered: whether somebody waits for the answer.
        reply_to, correlation_id: where it goes, if it comes later (as `reply_queues` keeps it), and what it is matched
            by.
        context: what comes back with what is told of it.
    """

    command: C
    principal: Principal
    source: str
    answered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None
    context: Context = NO_CONTEXT

    @property
    def tenant(self) -> str:
        """The tenant whose entities the command is about."""
        return self.principal.tenant


def receive(principals: Principals, envelope: Envelope[Any], origin: Origin) -> Received[Any]:
    """A command as it came over a queue.

    Raises:
        Denied: its login may not act for its tenant.
        ForbiddenReplyQueue: answers may not go to the queue that it names.
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
    )


def _tell(principals: Principals, envelope: Envelope[Any], origin: Origin, reason: str) -> None:
    tenant = principals.tenant_of(origin.user_id, envelope.tenant)
    audit.denied(Denial(envelope.type, origin.user_id or "nobody", tenant, reason), envelope.data.subject)
