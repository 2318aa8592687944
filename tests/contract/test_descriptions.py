"""The description of a signature: for people, no part of what the LM sees, and no new version."""

from __future__ import annotations

from functools import partial
from typing import Any

from dspex import Signature, uuid7
from dspex.client.interface import Interface
from tests.contract.interface import code_of

ARROW = "ticket -> urgency"


def described(text: str | None, **more: Any) -> Signature:
    return Signature.parse({"arrow": ARROW} | ({"description": text} if text else {}) | more)


def test_it_is_for_people() -> None:
    plain, told = described(None, instructions="Judge."), described("Triage.", instructions="Judge.")
    assert plain.digest == told.digest
    assert "description" not in plain.model_dump()
    assert plain.json_schema()["description"] == "Judge."
    assert told.json_schema()["description"] == "Triage."
    assert Signature.parse(told.model_dump(mode="json")) == told


def test_it_comes_back_and_changes_in_any_status(dspex: Interface) -> None:
    name = f"described {uuid7()}"
    created = dspex.create_signature(described("First.", name=name))
    assert created.signature.description == "First."
    assert dspex.get_signature_schema(name=name).description == "First."
    changed = dspex.update_signature(created.signature_id, described("Second.", name=name))
    assert (changed.signature.description, changed.status, changed.digest) == ("Second.", "active", created.digest)
    assert changed.lock_version == created.lock_version + 1
    assert dspex.update_signature(created.signature_id, described(None, name=name)).signature.description is None
    # Nothing else of it may be changed so.
    for other in (described("x", name="another"), described("x", name=name, instructions="Judge.")):
        assert code_of(partial(dspex.update_signature, created.signature_id, other)) == "illegal_transition"


def test_whoever_gives_one_changes_it_and_whoever_gives_none_does_not(dspex: Interface) -> None:
    name = f"described {uuid7()}"
    ids = set()
    for given, kept in ((None, None), ("First.", "First."), (None, "First."), ("Second.", "Second.")):
        program = dspex.create_program("p", described(given, name=name), adapter_type="mock")
        assert dspex.get_signature(program.signature_id).signature.description == kept
        ids.add(program.signature_id)
    assert len(ids) == 1


def test_a_deployment_shows_and_changes_it(dspex: Interface) -> None:
    wanted = {"name": f"described {uuid7()}", "adapter_type": "mock", "signature": {"arrow": ARROW}}
    before = dspex.deploy(wanted)
    told = wanted | {"signature": {"arrow": ARROW, "description": "Triage."}}
    plan = dspex.plan_deployment(told)
    assert [(d.member, d.before, d.after) for d in plan.differences] == [("signature.description", None, "Triage.")]
    assert plan.signature is None
    after = dspex.deploy(told, plan=plan)
    assert (after.signature_id, after.backend_id, after.status) == (before.signature_id, before.backend_id, "ready")
    assert dspex.get_signature(after.signature_id).signature.description == "Triage."
    assert dspex.plan_deployment(told).is_empty
    assert dspex.plan_deployment(wanted).is_empty  # without one, the one that is there stays
