"""Pauses and limits by message: who may, of what, by whose word, and what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspex import DspexError, ExecutionOptions, uuid7
from dspex.contract.gates import GateView, Limits
from dspex.errors import Denied
from tests.pages import block
from tests.unit.system import System
from workers.local import LocalClient
from workers.security.authorization import Principal, Role
from workers.security.principals import EVERYBODY


def as_one(system: System, name: str, role: Role, tenant: str = "acme") -> LocalClient:
    return LocalClient(system.app, Principal(name, tenant, frozenset({role})))


def of_all(system: System, tenant: str = "acme") -> LocalClient:
    """The command line's."""
    return LocalClient(system.app, Principal(EVERYBODY.name, tenant, EVERYBODY.roles, fleet=True))


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(DspexError) as raised:
        call()
    return raised.value.code


def listed(client: LocalClient) -> list[tuple[str, bool, str | None]]:
    """Of what, whether by an operator of all, and who has paused it."""
    found = client.list_gates().items
    return [(str(gate.scope), gate.shared, gate.paused.by if gate.paused else None) for gate in found]


def test_an_operator_pauses_and_resumes_what_is_its_tenants(system: System) -> None:
    ops = as_one(system, "ops", Role.OPERATOR)
    program = ops.create_program("p", "q -> a", adapter_type="mock").program_id
    paused = ops.pause("program", program, reason="the index is built again")
    assert paused.paused is not None
    assert (paused.paused.by, paused.paused.reason, paused.shared) == ("ops", "the index is built again", False)
    ops.pause("tenant")
    ops.pause("label", "customer=7")
    assert ops.pause("program", program).paused == paused.paused
    assert listed(ops) == [
        ("label customer=7", False, "ops"),
        (f"program {program}", False, "ops"),
        ("tenant acme", False, "ops"),
    ]
    assert ops.resume("program", program) == GateView(scope=paused.scope, shared=False)
    assert ops.resume("program", program).paused is None
    assert [scope for scope, *_ in listed(ops)] == ["label customer=7", "tenant acme"]


def test_limits_are_set_replaced_and_taken_away(system: System) -> None:
    ops = as_one(system, "ops", Role.OPERATOR)
    ops.set_limit("tenant", limits={"requests_per_minute": 60})
    found = ops.set_limit("tenant", limits=Limits(in_flight=8, least_in_flight=2, tokens_per_minute=100_000))
    assert found.limits == Limits(in_flight=8, least_in_flight=2, tokens_per_minute=100_000)
    assert (found.in_flight, found.allowed, found.paused) == (0, 8, None)
    ops.pause("tenant")
    assert ops.resume("tenant").limits == found.limits
    [gate] = ops.list_gates(kind="tenant", paused=False).items
    assert gate == found
    assert ops.list_gates(paused=True).items == ()
    assert ops.remove_limit("tenant").limits is None
    assert ops.list_gates().items == ()


@pytest.mark.parametrize(
    ("kind", "name"), [("everything", None), ("lane", "bulk"), ("lm", "fast"), ("worker", "w"), ("tenant", "other")]
)
def test_what_others_share_is_not_a_tenants(system: System, kind: str, name: str | None) -> None:
    ops = as_one(system, "ops", Role.ADMIN)
    for change in (ops.pause, ops.resume):
        with pytest.raises(Denied, match="is not of 'acme' alone: whoever has the database may"):
            change(kind, name)
    assert listed(of_all(system)) == []
    assert of_all(system).pause(kind, name).shared
    assert of_all(system).resume(kind, name).paused is None


def test_a_producer_pauses_programs_and_resumes_its_own_pauses(system: System) -> None:
    ops, app = as_one(system, "ops", Role.OPERATOR), as_one(system, "app", Role.PRODUCER)
    other = as_one(system, "other-app", Role.PRODUCER)
    program = app.create_program("p", "q -> a", adapter_type="mock").program_id
    assert app.pause("program", program).paused is not None
    with pytest.raises(Denied, match="scope: app has paused it, which an operator may undo"):
        other.resume("program", program)
    assert app.resume("program", program).paused is None
    app.pause("program", program)
    ops.pause("program", program, reason="stays")  # now it is the operator's
    again = app.pause("program", program, reason="mine")
    assert again.paused is not None
    assert (again.paused.by, again.paused.reason) == ("ops", "stays")
    assert code_of(lambda: app.resume("program", program)) == "denied"
    assert ops.resume("program", program).paused is None
    for kind, name in (("tenant", None), ("label", "customer=7")):
        assert code_of(lambda kind=kind, name=name: app.pause(kind, name)) == "denied"  # type: ignore[misc]
    assert code_of(lambda: app.set_limit("program", program, limits={"in_flight": 1})) == "denied"
    assert code_of(lambda: app.remove_limit("program", program)) == "denied"


def test_what_an_operator_of_all_says_no_tenant_takes_back(system: System) -> None:
    ops, fleet = as_one(system, "ops", Role.ADMIN), of_all(system)
    program = ops.create_program("p", "q -> a", adapter_type="mock").program_id
    fleet.pause("program", program)
    fleet.set_limit("tenant", limits={"in_flight": 3})
    assert ops.resume("program", program).paused is None  # its own, which there is none of
    ops.set_limit("tenant", limits={"in_flight": 900})
    ops.remove_limit("tenant")
    assert listed(ops) == [(f"program {program}", True, "/dspex/local"), ("tenant acme", True, None)]
    assert fleet.list_gates(kind="tenant").items[0].limits == Limits(in_flight=3)
    assert fleet.resume("program", program).paused is None
    assert [scope for scope, *_ in listed(ops)] == ["tenant acme"]


def test_a_tenant_sees_its_own_and_what_holds_for_all(system: System) -> None:
    acme, other = as_one(system, "ops", Role.ADMIN), as_one(system, "ops2", Role.ADMIN, "other")
    program = acme.create_program("p", "q -> a", adapter_type="mock").program_id
    acme.pause("label", "customer=7")
    of_all(system).pause("program", program)
    of_all(system).pause("tenant")
    of_all(system).pause("lm", "fast", reason="it is down")
    assert [scope for scope, *_ in listed(other)] == ["lm fast"]
    everything = ["lm fast", f"program {program}", "tenant acme", "label customer=7"]
    viewer = as_one(system, "viewer", Role.VIEWER)
    assert sorted(scope for scope, *_ in listed(viewer)) == sorted(everything)
    assert sorted(scope for scope, *_ in listed(of_all(system))) == sorted(everything)
    assert code_of(lambda: viewer.pause("program", program)) == "denied"


def test_a_program_that_is_not_there_is_not_paused(system: System) -> None:
    acme, other = as_one(system, "ops", Role.ADMIN), as_one(system, "ops2", Role.ADMIN, "other")
    program = acme.create_program("p", "q -> a", adapter_type="mock").program_id
    assert code_of(lambda: other.pause("program", program)) == "not_found"
    assert code_of(lambda: acme.set_limit("program", uuid7(), limits={"in_flight": 1})) == "not_found"
    assert code_of(lambda: acme.pause("program", "p")) == code_of(lambda: acme.pause("lane", "low")) == "invalid_values"


def test_pages_of_gates(system: System) -> None:
    dspex = LocalClient(system.app)
    for number in range(5):
        dspex.pause("lm", f"lm-{number}")
    first = dspex.list_gates(limit=3)
    rest = dspex.list_gates(limit=3, cursor=first.next_cursor)
    assert [gate.scope.name for gate in (*first.items, *rest.items)] == [f"lm-{number}" for number in range(5)]
    assert rest.next_cursor is None


def test_the_code_of_the_page(system: System) -> None:
    client = LocalClient(system.app)
    program = client.create_program("p", "question -> answer", adapter_type="mock").program_id
    client.initialize_program(program)
    names: dict[str, Any] = {"client": client, "program_id": program, "inputs": {"question": "?"}}
    names["ExecutionOptions"] = ExecutionOptions
    for beginning in ("client.submit_program(", "client.pause(", "client.set_limit("):
        exec(block("docs/queues.md", "python", beginning), names)
    assert listed(client) == [("tenant default", True, None)]
