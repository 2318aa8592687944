"""The registry of commands in a worker: handler, roles and priority of each.

A handler declares them where it is defined:

    @handles(GetProgram, roles=EVERY_ROLE)
    def get_program(app: Application, received: Received[GetProgram]) -> ProgramView: ...

A command without a handler is denied, and has no actor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from dspex.contract.commands import Command
from workers.application.wiring import Application
from workers.brokers.work_queue import QUICK
from workers.security.authorization import Role, permit
from workers.security.request import Received

C = TypeVar("C", bound=Command)
Answer = TypeVar("Answer", bound=BaseModel | None)


@dataclass(frozen=True)
class Registration:
    """The registration of a command.

    Attributes:
        handler: carries the command out and returns the answer; None: the answer comes later.
        priority: the priority of its actor, see `workers.brokers.work_queue`.
    """

    handler: Callable[[Application, Received[Any]], BaseModel | None]
    priority: int


_REGISTRY: dict[str, Registration] = {}
REGISTRY: Final[Mapping[str, Registration]] = MappingProxyType(_REGISTRY)
"""The registrations by type. Complete once `workers.handlers.dispatch` has imported the handlers."""


def handles(
    command: type[C], *, roles: frozenset[Role], priority: int = QUICK
) -> Callable[[Callable[[Application, Received[C]], Answer]], Callable[[Application, Received[C]], Answer]]:
    """Register the decorated function as the handler of a command.

    Args:
        roles: a principal needs one of them.
        priority: the priority of its actor. Building a program, reading a module or processing the matches of a
    filter takes seconds (`CHANGES`). Quick commands never wait for that, nor for executions.

    Raises:
        ValueError: the command already has a handler, or the roles are invalid.
    """

    def register(handler: Callable[[Application, Received[C]], Answer]) -> Callable[[Application, Received[C]], Answer]:
        permit(command, roles)
        _REGISTRY[command.type] = Registration(handler, priority)
        return handler

    return register
