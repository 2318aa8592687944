"""What an execution is asked with is the same after its message, its row, and the message that the relay makes of that.

Every field has another value than where nothing is said: one that is added, and forgotten on the way, fails here.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import update

from dspex import Configuration, ExecuteProgram, ExecutionOptions, Signature, uuid7, wrap
from dspex.contract.callback import Callback
from dspex.contract.envelope import Envelope, decode_command
from store import executions, programs, signatures
from store.database.engine import make_engine
from store.executions import Request
from store.tables import executions as executions_table
from workers.brokers.encoding import Origin
from workers.execution.request import envelope_of, request_of
from workers.security.authorization import Principal, Role
from workers.security.principals import Principals
from workers.security.request import receive

PRINCIPALS = Principals({"anna": Principal("anna", "acme", frozenset({Role.ADMIN}))}, system="workers")
ASKED = Origin("dspex.executions", "anna", reply_to="anna.answers", correlation_id="17")
BY_THE_RELAY = Origin("dspex.executions", "workers")

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

NOT_SENT_AGAIN = {"reply_to", "correlation_id", "idempotency_key", "requested_at"}
"""Who is answered, and when it was asked for first, is in the row; what the key stands for is the id by now."""


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
    again = envelope_of(received(FULL_ENVELOPE, ASKED))
    assert (again.source, again.traceparent, again.tenant) == ("/orders", FULL_ENVELOPE.traceparent, "acme")
    assert again.extensions == {"partitionkey": "a", "sampledrate": 3}


def test_the_message_of_the_relay_asks_for_the_same() -> None:
    request = received(FULL_ENVELOPE, ASKED)
    again = received(envelope_of(request), BY_THE_RELAY)
    assert differing(request, again, NAMES) == NOT_SENT_AGAIN
    assert again.digest == request.digest
    assert differing(received(envelope_of(again), BY_THE_RELAY), again, NAMES) <= {"requested_at"}


def test_a_row_keeps_it_all(migrated: Path) -> None:
    engine = make_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:  # and nothing is committed
        program_id = ready(connection, "acme")
        request = replace(received(FULL_ENVELOPE, ASKED), program_id=program_id)
        executions.create(connection, request, due_in=-1.0)
        (kept,) = executions.due(connection, 30.0, 10)
        claimed = executions.claim(connection, executions.Lease("worker", -1.0), [request])
        connection.execute(update(executions_table).values(lease_expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
        (rescued,) = executions.rescue(connection, 30.0, 10)
    engine.dispose()
    assert isinstance(claimed[0], executions.Claimed)
    for again in (kept.request, rescued):
        assert differing(request, again, NAMES) == {"idempotency_key"}
        assert again.digest == request.digest
        assert received(envelope_of(again), BY_THE_RELAY).digest == request.digest


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
