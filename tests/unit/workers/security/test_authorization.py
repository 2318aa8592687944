"""Who may do what: the table is whole, its rows say what the roles are for, and what is denied leaves a line."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from dspex.contract.commands import CancelExecution, Command, DestroyProgram, ExecuteProgram
from dspex.contract.queries import QUERIES, REQUESTS, GetExecution, ValidateModule
from dspex.errors import Denied
from workers.handlers.dispatch import HANDLERS
from workers.security.authorization import POLICY, Principal, Role, authorize
from workers.security.principals import EVERYBODY, Principals

EXECUTE = ExecuteProgram(execution_id=uuid4(), program_id=uuid4(), inputs={})


def somebody(*roles: Role) -> Principal:
    """A principal with these roles."""
    return Principal("somebody", "acme", frozenset(roles))


def test_every_request_has_a_row_and_a_handler() -> None:
    assert {request.type for request in POLICY} == set(REQUESTS) == set(HANDLERS)


def test_an_admin_may_do_everything_and_who_has_no_role_nothing() -> None:
    assert all(Role.ADMIN in roles for roles in POLICY.values())
    with pytest.raises(Denied, match=r"dspex\.program\.execute\.v1: 'somebody' has the roles none"):
        authorize(somebody(), EXECUTE)


def test_a_viewer_reads_and_changes_nothing() -> None:
    reads: set[type[Command]] = {request for request, roles in POLICY.items() if Role.VIEWER in roles}
    assert reads == set(QUERIES.values()) - {ValidateModule}


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
