"""Authorization: principals, their roles, and the roles that a command requires."""

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
    """The role of a principal. `system` is only for the workers' login, which may act for every tenant."""

    ADMIN = "admin"
    OPERATOR = "operator"
    PRODUCER = "producer"
    VIEWER = "viewer"
    SYSTEM = "system"


@dataclass(frozen=True)
class Principal:
    """The sender of a command: its name, the tenant whose entities it sees, and its roles.

    Attributes:
        fleet: whether it may pause and limit what all tenants share: it has the database, or there are no tenants.
    """

    name: str
    tenant: str = DEFAULT_TENANT
    roles: frozenset[Role] = field(default_factory=frozenset)
    fleet: bool = False


EVERY_ROLE = frozenset({Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER})
"""All roles that an operator can give; not `system`."""
MAKERS = EVERY_ROLE - {Role.VIEWER}
OPERATORS = frozenset({Role.ADMIN, Role.OPERATOR})
ADMINS = frozenset({Role.ADMIN})

_ROLES: dict[type[Command], frozenset[Role]] = {}
ROLES: Final[Mapping[type[Command], frozenset[Role]]] = MappingProxyType(_ROLES)
"""The roles of each command, as its handler declares them; a principal needs one. Other commands are denied.


`docs/permissions.md` has the whole table, which a test holds this to.
"""


def permit(action: type[Command], roles: frozenset[Role]) -> None:
    """Declare the roles of a command, once.

    Raises:
        ValueError: they are declared already, or are invalid.
    """
    if action in _ROLES:
        raise ValueError(f"{action.type} has its roles already")
    if Role.ADMIN not in roles or not roles <= EVERY_ROLE:
        raise ValueError(f"{action.type}: roles are admin, and of operator, producer and viewer those that may")
    _ROLES[action] = roles


def allows(principal: Principal, action: type[Command]) -> bool:
    """Whether a role of the principal allows an action. Unlike `authorize`, leaves no audit line."""
    return Role.SYSTEM in principal.roles or bool(principal.roles & ROLES.get(action, frozenset()))


def authorize(principal: Principal, command: Command) -> None:
    """Check that the principal may give a command; leave an audit line if not.

    Raises:
        Denied: no role of the principal allows it.
    """
    if not allows(principal, type(command)):
        require_role(principal, type(command), command.subject)


def told_of(principal: Principal, command: Command, denied: DspexError) -> None:
    """Leave an audit line for a denial that is not about roles, but about a secret or a tenant."""
    field, _, _ = denied.message.partition(":")
    denial = Denial(command.type, principal.name, principal.tenant, f"for its {field[:40]}")
    audit.denied(denial, f"{command.subject or '-'}: {denied.message}")


def require_role(principal: Principal, action: type[Command], subject: str | None) -> None:
    """Like `authorize`, for a command that is not read yet. The subject is from the unvalidated data."""
    if allows(principal, action):
        return
    roles = ", ".join(sorted(principal.roles)) or "none"
    needed = ", ".join(sorted(ROLES.get(action, frozenset()))) or "nobody"
    audit.denied(Denial(action.type, principal.name, principal.tenant, f"roles: {roles}"), subject)
    raise Denied(f"{action.type}: '{principal.name}' has the roles {roles}; it needs one of {needed}")
