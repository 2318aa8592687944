"""The handlers of pauses and limits: of what somebody may, and by whose word.

What an operator of all tenants says (`Principal.fleet`) and what a tenant says are gates of their own, so that no
tenant takes back what it was told to keep to. A producer may pause programs, and resume what it has paused itself.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection

from dspex.contract.gates import GateKind, GateView, ListGates, Pause, RemoveLimit, Resume, SetLimit, Steering
from dspex.contract.results import Page
from dspex.errors import Denied, NotFound
from store import gates, programs
from store.database.tenancy import ALL
from store.gates import Gate, GateKey
from workers.application.wiring import Application
from workers.handlers.registry import handles
from workers.outbound.serializers import gate_view
from workers.security.authorization import EVERY_ROLE, MAKERS, OPERATORS, Role
from workers.security.request import Received

OF_A_TENANT = frozenset({GateKind.TENANT, GateKind.PROGRAM, GateKind.LABEL})
"""What a tenant may pause and limit of its own. The rest is shared with others."""
MAY_OPERATE = OPERATORS | {Role.SYSTEM}


@handles(Pause, roles=MAKERS)
def pause(app: Application, received: Received[Pause]) -> GateView:
    """Choose no more of a scope."""
    key, by, reason = _key(app, received), _by(received), received.command.reason

    def change(connection: Connection) -> Gate:
        before, why = gates.locked(connection, key), reason
        if before is not None and before.paused and before.paused_by != by:
            if not _operates(received):
                return _now(connection, key)  # it stays the operator's
            gates.resume(connection, key, by=by)  # and is the operator's from now on
            why = reason or before.paused_reason
        gates.pause(connection, key, by=by, reason=why)
        return _now(connection, key)

    return gate_view(app.write(change))


@handles(Resume, roles=MAKERS)
def resume(app: Application, received: Received[Resume]) -> GateView:
    """Go on with a scope."""
    key, by = _key(app, received), _by(received)

    def change(connection: Connection) -> Gate:
        before = gates.locked(connection, key)
        if before is not None and before.paused and before.paused_by != by and not _operates(received):
            raise Denied(f"scope: {before.paused_by} has paused it, which an operator may undo")
        gates.resume(connection, key, by=by)
        return _now(connection, key)

    return gate_view(app.write(change))


@handles(SetLimit, roles=OPERATORS)
def set_limit(app: Application, received: Received[SetLimit]) -> GateView:
    """Replace the limits of a scope."""
    key, given = _key(app, received), gates.Limits(**received.command.limits.model_dump())

    def change(connection: Connection) -> Gate:
        gates.set_limit(connection, key, given, by=_by(received))
        return _now(connection, key)

    return gate_view(app.write(change))


@handles(RemoveLimit, roles=OPERATORS)
def remove_limit(app: Application, received: Received[RemoveLimit]) -> GateView:
    """Take the limits of a scope away."""
    key = _key(app, received)

    def change(connection: Connection) -> Gate:
        gates.remove_limit(connection, key, by=_by(received))
        return _now(connection, key)

    return gate_view(app.write(change))


@handles(ListGates, roles=EVERY_ROLE)
def list_gates(app: Application, received: Received[ListGates]) -> Page[GateView]:
    """Read what is paused or limited: of a tenant, and what holds for all of them."""
    asked = received.command
    with app.read(ALL) as connection:
        found = [
            gate
            for gate in gates.listing(connection)
            if (asked.kind is None or gate.key.kind == asked.kind)
            and (asked.paused is None or gate.paused == asked.paused)
            and (asked.cursor is None or gate.key.text > asked.cursor)
            and _may_see(connection, gate.key, received)
        ]
    found.sort(key=lambda gate: gate.key.text)
    page = found[: asked.limit]
    return Page[GateView](
        items=tuple(map(gate_view, page)), next_cursor=page[-1].key.text if len(found) > len(page) else None
    )


def _key(app: Application, received: Received[Steering]) -> GateKey:
    """The gate of a scope, by whose word it is.

    Raises:
        Denied: the scope is shared with other tenants, or another's; or the sender may pause programs only.
        NotFound: there is no such program.
    """
    scope, tenant, principal = received.command.scope, received.tenant, received.principal
    if scope.kind is not GateKind.PROGRAM and not _operates(received):
        raise Denied(f"scope: '{principal.name}' may pause and resume programs; an operator may the rest")
    name = scope.name or (tenant if scope.kind is GateKind.TENANT else "")
    if not principal.fleet and (scope.kind not in OF_A_TENANT or (scope.kind is GateKind.TENANT and name != tenant)):
        raise Denied(f"scope: {scope} is not of '{tenant}' alone: whoever has the database may, on the command line")
    if scope.kind is GateKind.PROGRAM:
        with app.read(tenant) as connection:
            programs.get(connection, UUID(name), tenant=tenant)
    whose = ALL if principal.fleet and scope.kind is not GateKind.LABEL else tenant
    return GateKey(scope.kind.value, name, whose)


def _operates(received: Received[Steering]) -> bool:
    return bool(received.principal.roles & MAY_OPERATE)


def _by(received: Received[Steering]) -> str:
    """Who it is, for people: the login, or where the message comes from if everybody has one name."""
    return received.source if received.principal.fleet else received.principal.name


def _now(connection: Connection, key: GateKey) -> Gate:
    """The gate as it is; one without effect, if there is none."""
    return next((gate for gate in gates.listing(connection, tenant=key.tenant) if gate.key == key), Gate(key))


def _may_see(connection: Connection, key: GateKey, received: Received[ListGates]) -> bool:
    tenant = received.tenant
    if received.principal.fleet or key.tenant == tenant:
        return True
    if key.tenant != ALL:
        return False
    if key.kind == GateKind.PROGRAM:
        try:
            programs.get(connection, UUID(key.name), tenant=tenant)
        except NotFound:
            return False
    return key.kind != GateKind.TENANT or key.name == tenant
