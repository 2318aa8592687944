"""What an execution is asked with is the same after its message, and after its row.

Every field has another value than where nothing is said: one that is added, and forgotten on the way, fails here.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from dspex import Configuration, ExecuteProgram, ExecutionOptions, Signature, uuid7, wrap
from dspex.contract.callback import Callback
from dspex.contract.envelope import Envelope, decode_command
from store import executions, programs, signatures
from store.database.engine import make_engine
from store.executions import Request
from store.executions.choosing import choose
from store.queues.turns import Turns
from workers.brokers.encoding import Origin
from workers.execution.request import request_of
from workers.security.authorization import Principal, Role
from workers.security.principals import Principals
from workers.security.request import receive

PRINCIPALS = Principals({"anna": Principal("anna", "acme", frozenset({Role.ADMIN}))}, system="workers")
ASKED = Origin("dspex.executions", "anna", reply_to="anna.answers", correlation_id="17")

BARE = ExecuteProgram(execution_id=uuid7(), program_id=uuid7(), inputs={})
FULL = ExecuteProgram(
    execution_id=uuid7(),
    program_id=uuid7(),
    inputs={"question": "why?", "large": 1e23, "small": -0.0, "list": [1, 2.5, None, {"a": "ü"}]},
    options=ExecutionOptions(
        seed=7, not_before=datetime(2026, 1, 1, tzinfo=UTC), deadline=datetime(2100, 1, 1, tzinfo=UTC)
    ),
    idempotency_key="once",
    callback=Callback(
        url="https://orders.example.com/done",
        secret="ORDERS_WEBHOOK_SECRET",
        events=("failed",),
        headers={"X-Api-Key": "ORDERS_WEBHOOK_TOKEN"},
        thin=True,
    ),
    metadata={"order": "17"},
)
BARE_ENVELOPE = wrap(BARE, source="/nobody")
FULL_ENVELOPE = wrap(
    FULL,
    source="/orders",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate="vendor=1",
    extensions={"partitionkey": "a", "sampledrate": 3},
)


def received(envelope: Envelope[Any], origin: Origin) -> Request:
    return request_of(receive(PRINCIPALS, decode_command(envelope.encode()), origin))


def differing(one: Any, other: Any, names: Any) -> set[str]:
    return {name for name in names if getattr(one, name) != getattr(other, name)}


NAMES = {field.name for field in fields(Request)}


def test_every_field_of_the_command_is_given_here() -> None:
    assert differing(BARE, FULL, ExecuteProgram.model_fields) == set(ExecuteProgram.model_fields)


def test_every_field_of_a_message_comes_into_the_request() -> None:
    bare = request_of(receive(Principals(), BARE_ENVELOPE, Origin("dspex.executions")))
    assert differing(bare, received(FULL_ENVELOPE, ASKED), NAMES) == NAMES


def test_each_field_of_an_envelope_is_kept_or_is_of_one_message_alone() -> None:
    of_one_message = {
        "specversion",
        "id",
        "type",
        "subject",
        "datacontenttype",
        "dataschema",
        "tracestate",  # of the span that sent it
    }
    kept = {"source", "traceparent", "tenant", "time", "data"}  # and what nobody has named: the extensions
    assert set(Envelope.model_fields) == of_one_message | kept
    kept_of = received(FULL_ENVELOPE, ASKED)
    assert (kept_of.source, kept_of.traceparent, kept_of.tenant) == ("/orders", FULL_ENVELOPE.traceparent, "acme")
    assert kept_of.extensions == {"partitionkey": "a", "sampledrate": 3}


def test_a_row_keeps_it_all(migrated: Path) -> None:
    engine = make_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:  # and nothing is committed
        program_id = ready(connection, "acme")
        request = replace(received(FULL_ENVELOPE, ASKED), program_id=program_id)
        lease = executions.Lease("worker", 60.0)
        executions.claim(connection, lease, [request], now=[False])
        (chosen,) = choose(connection, lease, 10, Turns(), alone_at=3).chosen
    engine.dispose()
    assert isinstance(chosen.claim, executions.Claimed)
    assert differing(request, chosen.request, NAMES) == {"idempotency_key"}  # what it stands for is the id by now
    assert chosen.request.digest == request.digest


def ready(connection: Any, tenant: str) -> UUID:
    signature = signatures.create(
        connection, uuid7(), Signature.parse("question -> answer"), activate=True, tenant=tenant
    )
    program_id = programs.create(
        connection,
        uuid7(),
        name="program",
        signature_id=signature.id,
        adapter_type="mock",
        configuration=Configuration(),
        tenant=tenant,
    ).id
    begun = programs.begin_initialize(connection, program_id, tenant=tenant)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return program_id
