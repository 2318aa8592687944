"""Who may do what: principals, their roles, and the roles that each command needs one of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dspex.contract.commands import Command
from dspex.errors import Denied, DspexError
from dspex.ids import DEFAULT_TENANT
from workers.security.audit import Denial, audit


class Role(StrEnum):
    """What a principal is for. `system` is a worker's own: it may act for every tenant, and is given to nobody else."""

    ADMIN = "admin"
    OPERATOR = "operator"
    PRODUCER = "producer"
    VIEWER = "viewer"
    SYSTEM = "system"


@dataclass(frozen=True)
class Principal:
    """Who asks: a name, the tenant whose entities it sees, and its roles."""

    name: str
    tenant: str = DEFAULT_TENANT
    roles: frozenset[Role] = field(default_factory=frozenset)


EVERY_ROLE = frozenset({Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER})
"""Of those that are given; `system` is not."""
MAKERS = EVERY_ROLE - {Role.VIEWER}
OPERATORS = frozenset({Role.ADMIN, Role.OPERATOR})
ADMINS = frozenset({Role.ADMIN})

_ROLES: dict[type[Command], frozenset[Role]] = {}
ROLES: Final[Mapping[type[Command], frozenset[Role]]] = MappingProxyType(_ROLES)
"""The roles that each command needs one of, as its handler states them. One that is not here is denied.

`docs/permissions.md` has the whole table, which a test holds this to.
"""


def permit(action: type[Command], roles: frozenset[Role]) -> None:
    """State the roles of a command, once.

    Raises:
        ValueError: they are stated already, or are none that can be.
    """
    if action in _ROLES:
        raise ValueError(f"{action.type} has its roles already")
    if Role.ADMIN not in roles or not roles <= EVERY_ROLE:
        raise ValueError(f"{action.type}: roles are admin, and of operator, producer and viewer those that may")
    _ROLES[action] = roles


def allows(principal: Principal, action: type[Command]) -> bool:
    """Whether a role of the principal allows an action. Nothing is said of it: see `authorize`."""
    return Role.SYSTEM in principal.roles or bool(principal.roles & ROLES.get(action, frozenset()))


def authorize(principal: Principal, command: Command) -> None:
    """Let a command pass, or leave an audit line.

    Raises:
        Denied: no role of the principal allows it.
    """
    if not allows(principal, type(command)):
        require_role(principal, type(command), command.subject)


def told_of(principal: Principal, command: Command, denied: DspexError) -> None:
    """Leave an audit line of a denial that is no matter of roles: of a secret, or of whose something is."""
    field, _, _ = denied.message.partition(":")
    denial = Denial(command.type, principal.name, principal.tenant, f"for its {field[:40]}")
    audit.denied(denial, f"{command.subject or '-'}: {denied.message}")


def require_role(principal: Principal, action: type[Command], subject: str | None) -> None:
    """As `authorize`, of a command that is not read yet: its subject is what it says itself."""
    if allows(principal, action):
        return
    roles = ", ".join(sorted(principal.roles)) or "none"
    needed = ", ".join(sorted(ROLES.get(action, frozenset()))) or "nobody"
    audit.denied(Denial(action.type, principal.name, principal.tenant, f"roles: {roles}"), subject)
    raise Denied(f"{action.type}: '{principal.name}' has the roles {roles}; it needs one of {needed}")
