"""What a worker knows of each command beside the contract: its handler, who may give it, and what it waits behind.

A handler states it, right where it is written:

    @handles(GetProgram, roles=EVERY_ROLE)
    def get_program(app: Application, received: Received[GetProgram]) -> ProgramView: ...

A command without one is denied, and has no actor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from dspex.contract.commands import Command
from workers.application.wiring import Application
from workers.execution.admission import QUICK
from workers.security.authorization import Role, permit
from workers.security.request import Received

C = TypeVar("C", bound=Command)
Answer = TypeVar("Answer", bound=BaseModel | None)


@dataclass(frozen=True)
class Registration:
    """What carries a command out.

    Attributes:
        handler: answers it; None: there is no answer yet.
        priority: of its actor, see `workers.execution.admission`.
    """

    handler: Callable[[Application, Received[Any]], BaseModel | None]
    priority: int


_REGISTRY: dict[str, Registration] = {}
REGISTRY: Final[Mapping[str, Registration]] = MappingProxyType(_REGISTRY)
"""By type, once the handlers are imported: `workers.handlers.dispatch` does."""


def handles(
    command: type[C], *, roles: frozenset[Role], priority: int = QUICK
) -> Callable[[Callable[[Application, Received[C]], Answer]], Callable[[Application, Received[C]], Answer]]:
    """Register the function below as what carries a command out.

    Args:
        roles: who has one of them may give it.
        priority: a process takes from all queues. Executions wait for LMs; to build a program, to read a module, or to
            go through all that a filter finds takes seconds (`CHANGES`). What is quick never waits for them.

    Raises:
        ValueError: the command has a handler, or the roles cannot be.
    """

    def register(handler: Callable[[Application, Received[C]], Answer]) -> Callable[[Application, Received[C]], Answer]:
        permit(command, roles)
        _REGISTRY[command.type] = Registration(handler, priority)
        return handler

    return register
