"""Who may do what: principals, their roles, and one table of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dspex.contract import commands as c
from dspex.contract import dead_letters as d
from dspex.contract import endpoints as e
from dspex.contract import queries as q
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


_ALL = frozenset({Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER})
_MAKES = frozenset({Role.ADMIN, Role.OPERATOR, Role.PRODUCER})
_RUNS = frozenset({Role.ADMIN, Role.OPERATOR})
_ADMIN = frozenset({Role.ADMIN})

POLICY: Final[Mapping[type[Command], frozenset[Role]]] = MappingProxyType(
    {
        # signatures
        c.CreateSignature: _MAKES,
        c.CreateSignatureFromModule: _RUNS,
        c.UpdateSignature: _MAKES,
        c.ActivateSignature: _RUNS,
        c.DeprecateSignature: _RUNS,
        c.DestroySignature: _ADMIN,
        q.GetSignature: _ALL,
        q.GetSignatureSchema: _ALL,
        q.ListSignatures: _ALL,
        q.CompareSignatures: _ALL,
        q.ValidateModule: _RUNS,
        # programs
        c.CreateProgram: _MAKES,
        c.CreateProgramWithSignature: _MAKES,
        c.InitializeProgram: _MAKES,
        c.UpdateProgram: _MAKES,
        c.ArchiveProgram: _RUNS,
        c.DestroyProgram: _ADMIN,
        q.GetProgram: _ALL,
        q.ListPrograms: _ALL,
        q.GetProgramStats: _ALL,
        q.GetProgramStatistics: _ALL,
        # executions
        c.ExecuteProgram: _MAKES,
        c.CancelExecution: _MAKES,
        q.GetExecution: _ALL,
        q.ListExecutions: _ALL,
        # dead letters
        d.ReplayExecutions: _RUNS,
        d.DiscardExecutions: _RUNS,
        d.ReplayMessages: _RUNS,
        d.DiscardMessages: _RUNS,
        q.GetRejectedMessage: _ALL,
        q.ListRejectedMessages: _ALL,
        # webhooks: an endpoint gets all that the tenant's programs put out
        e.RegisterEndpoint: _RUNS,
        e.UpdateEndpoint: _RUNS,
        e.EnableEndpoint: _RUNS,
        e.DisableEndpoint: _RUNS,
        e.RotateSecret: _RUNS,
        e.DeleteEndpoint: _RUNS,
        e.ReplayDeliveries: _RUNS,
        q.GetEndpoint: _ALL,
        q.ListEndpoints: _ALL,
        q.GetDelivery: _ALL,
        q.ListDeliveries: _ALL,
    }
)
"""The roles that each action needs one of. An action that is not listed is denied; a test keeps the list whole."""


def allows(principal: Principal, action: type[Command]) -> bool:
    """Whether a role of the principal allows an action. Nothing is said of it: see `authorize`."""
    return Role.SYSTEM in principal.roles or bool(principal.roles & POLICY.get(action, frozenset()))


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
    needed = ", ".join(sorted(POLICY.get(action, frozenset()))) or "nobody"
    audit.denied(Denial(action.type, principal.name, principal.tenant, f"roles: {roles}"), subject)
    raise Denied(f"{action.type}: '{principal.name}' has the roles {roles}; it needs one of {needed}")
