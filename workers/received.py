"""A command as a handler gets it: with who asks, and what came with its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from dspex.commands import Command
from workers.policy import Principal

C = TypeVar("C", bound=Command, covariant=True)


@dataclass(frozen=True)
class Received(Generic[C]):
    """A command and its circumstances.

    Attributes:
        answered: whether somebody waits for the answer.
        reply_to, correlation_id: where it goes, if it comes later, and what it is matched by.
    """

    command: C
    principal: Principal
    source: str
    traceparent: str | None = None
    answered: bool = False
    reply_to: str | None = None
    correlation_id: str | None = None

    @property
    def tenant(self) -> str:
        """The tenant whose entities the command is about."""
        return self.principal.tenant
