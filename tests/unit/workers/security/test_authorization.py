"""Who may do what: the table is whole, its rows say what the roles are for, and what is denied leaves a line."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from dspex.contract.commands import CancelExecution, Command, DestroyProgram, ExecuteProgram
from dspex.contract.queries import GetExecution
from dspex.contract.requests import REQUESTS
from dspex.errors import Denied
from tests.pages import ROOT
from workers.handlers import dispatch as dispatch  # which imports the handlers: they state the roles
from workers.security.authorization import ROLES, Principal, Role, allows, authorize, permit
from workers.security.principals import EVERYBODY, Principals

COLUMNS = ("viewer", "producer", "operator", "admin")
EXECUTE = ExecuteProgram(execution_id=uuid4(), program_id=uuid4(), inputs={})


def somebody(*roles: Role) -> Principal:
    """A principal with these roles."""
    return Principal("somebody", "acme", frozenset(roles))


def test_each_role_may_do_what_the_table_says() -> None:
    table = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table if line.startswith("| `dspex.")]
    expected = {type_: {role for role, mark in zip(COLUMNS, marks, strict=True) if mark} for type_, _, *marks in rows}
    assert len(expected) == len(rows)
    assert {action.type: set(roles) for action, roles in ROLES.items()} == expected
    for type_, action in REQUESTS.items():
        for role in COLUMNS:
            assert allows(somebody(Role(role)), action) == (role in expected[type_]), (type_, role)


def test_what_nobody_has_stated_roles_for_is_denied_and_who_has_no_role_may_do_nothing() -> None:
    class Unregistered(Command):
        type = "dspex.nothing.v1"

    everybody = somebody(Role.ADMIN, Role.OPERATOR, Role.PRODUCER, Role.VIEWER)
    with pytest.raises(Denied, match=r"dspex\.nothing\.v1: .* it needs one of nobody"):
        authorize(everybody, Unregistered())
    with pytest.raises(Denied, match=r"dspex\.program\.execute\.v1: 'somebody' has the roles none"):
        authorize(somebody(), EXECUTE)
    assert Unregistered not in ROLES
    assert Unregistered.type not in REQUESTS


@pytest.mark.parametrize("roles", [set(), {Role.VIEWER}, {Role.ADMIN, Role.SYSTEM}])
def test_roles_that_cannot_be_are_refused(roles: set[Role]) -> None:
    class Wrong(Command):
        type = "dspex.nothing.v1"

    with pytest.raises(ValueError, match=r"dspex\.nothing\.v1: roles are admin"):
        permit(Wrong, frozenset(roles))
    assert Wrong not in ROLES


def test_roles_are_stated_once() -> None:
    with pytest.raises(ValueError, match="has its roles already"):
        permit(DestroyProgram, frozenset(Role) - {Role.SYSTEM})
    assert ROLES[DestroyProgram] == {Role.ADMIN}


def test_a_producer_runs_and_cancels_but_does_not_destroy() -> None:
    producer = somebody(Role.PRODUCER)
    authorize(producer, EXECUTE)
    authorize(producer, CancelExecution(execution_id=uuid4()))
    with pytest.raises(Denied):
        authorize(producer, DestroyProgram(program_id=uuid4()))


def test_what_is_denied_leaves_an_audit_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "dspex.audit"), pytest.raises(Denied):
        authorize(somebody(Role.VIEWER), EXECUTE)
    assert [record.name for record in caplog.records] == ["dspex.audit"]
    for part in ("dspex.program.execute.v1", "somebody", "acme", "viewer", str(EXECUTE.execution_id)):
        assert part in caplog.text


class TestPrincipals:
    known = Principals({"orders": Principal("orders", "acme", frozenset({Role.PRODUCER}))}, system="workers")

    def test_without_tenancy_there_is_one_tenant(self) -> None:
        assert Principals().of(None) == Principals().of("anybody", "any") == EVERYBODY
        assert EVERYBODY.tenant == "default"

    def test_a_login_has_its_tenant_and_roles(self) -> None:
        assert self.known.of("orders") == self.known.of("orders", "acme")
        assert self.known.of("orders").tenant == "acme"
        assert self.known.tenant_of("orders") == "acme"

    @pytest.mark.parametrize("asked", [(None, None), ("stranger", None), ("orders", "other"), (None, "acme")])
    def test_others_are_denied(self, asked: tuple[Any, Any]) -> None:
        with pytest.raises(Denied):
            self.known.of(*asked)

    def test_a_worker_speaks_for_any_tenant(self) -> None:
        system = self.known.of("workers", "acme")
        assert (system.tenant, set(system.roles)) == ("acme", {Role.SYSTEM})
        authorize(system, EXECUTE)
        authorize(self.known.of("workers", "other"), DestroyProgram(program_id=uuid4()))
        authorize(system, GetExecution(execution_id=uuid4()))
