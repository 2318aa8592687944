"""A command as a handler gets it: with who asks, and what came with its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dspex.commands import Command
from dspex.envelope import NO_CONTEXT, Context, Envelope
from dspex.errors import Denied, ForbiddenReplyQueue
from workers.application import Application
from workers.audit import Denial, audit
from workers.brokers.encoding import Origin
from workers.policy import Principal
from workers.reply_queues import checked

if TYPE_CHECKING:
    from workers.intake import Place

C = TypeVar("C", bound=Command, covariant=True)


@dataclass(frozen=True)
class Received(Generic[C]):
    """A command and its circumstances.

    Attributes:
        answered: whether somebody waits for the answer.
        reply_to, correlation_id: where it goes, if it comes later (as `reply_queues` keeps it), and what it is matched
            by.
        place: of an execution that came by a queue.
        context: what comes back with what is told of it.
    """

    command: C
    principal: Principal
    source: str
    answered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None
    place: Place | None = None
    context: Context = NO_CONTEXT

    @property
    def tenant(self) -> str:
        """The tenant whose entities the command is about."""
        return self.principal.tenant


def receive(app: Application, envelope: Envelope[Any], origin: Origin, place: Place | None = None) -> Received[Any]:
    """A command as it came over a queue.

    Raises:
        Denied: its login may not act for its tenant.
        ForbiddenReplyQueue: answers may not go to the queue that it names.
    """
    try:
        reply_to = checked(origin.reply_to, origin.user_id)
    except ForbiddenReplyQueue:
        _tell(app, envelope, origin, "reply_to is not its sender's")
        raise
    if reply_to is not None and app.principals.is_system(origin.user_id):
        _tell(app, envelope, origin, "the workers' own login asks nothing")
        raise Denied(f"user-id: '{origin.user_id}' is the workers' own login, which asks nothing: use another")
    return Received(
        command=envelope.data,
        principal=app.principals.of(origin.user_id, envelope.tenant),
        source=envelope.source,
        answered=reply_to is not None,
        reply_to=reply_to,
        correlation_id=origin.correlation_id,
        place=place,
        context=envelope.context,
    )


def _tell(app: Application, envelope: Envelope[Any], origin: Origin, reason: str) -> None:
    tenant = app.principals.tenant_of(origin.user_id, envelope.tenant)
    audit.denied(Denial(envelope.type, origin.user_id or "nobody", tenant, reason), envelope.data.subject)
