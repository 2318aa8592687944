"""What a database knows of its tables, and rows in each of them."""

from __future__ import annotations

import re
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, insert, select, text

from dspex import Configuration, ExecutionOptions, Signature, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from store import blob_owners, executions, programs, rejections, signatures, webhooks
from store.queues import counts
from store.tables import NOW, early_cancels, gates, metadata, slots, workers

SCHEMA = {
    "sqlite": ("SELECT type, name, tbl_name, sql FROM sqlite_master",),
    "postgresql": (
        """SELECT table_name, rank() OVER (PARTITION BY table_name ORDER BY ordinal_position), column_name, data_type,
                  character_maximum_length, is_nullable, column_default
           FROM information_schema.columns WHERE table_schema = 'public'""",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
        "SELECT relname, relkind::text, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    ),
}
PART = re.compile(r",(?![^(]*\))|(?<=\S) (?=CONSTRAINT)")
"""Columns and constraints are parted by commas outside of parentheses; one that came with its column, by nothing."""
Rows = dict[str, list[tuple[Any, ...]]]


def differences(engine: Engine) -> list[Any]:
    """What `alembic revision --autogenerate` would write."""
    options = {"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def schema(engine: Engine) -> set[tuple[Any, ...]]:
    """Everything the database knows of its tables: columns, constraints and indexes with their predicates, options."""
    with engine.connect() as connection:
        return {
            tuple(map(normal, row))
            for query in SCHEMA[engine.dialect.name]
            for row in connection.execute(text(query))
            if not any("alembic_version" in str(value) for value in row)
        }


def normal(value: Any) -> Any:
    """SQLite keeps the text: quotes, white space and the place of the constraints depend on how a table came about."""
    if not isinstance(value, str) or not value.startswith("CREATE TABLE"):
        return value
    head, _, body = value.replace('"', "").partition("(")
    parts = [" ".join(part.split()) for part in PART.split(body.rstrip().removesuffix(")"))]
    columns = [part for part in parts if not part.startswith("CONSTRAINT")]
    constraints = sorted(part for part in parts if part.startswith("CONSTRAINT"))
    return "\n".join([head.strip(), *columns, *constraints])


def fill(engine: Engine) -> None:
    """At least one row in every table."""
    signature_id, program_id = uuid7(), uuid7()
    with engine.begin() as connection:
        signatures.create(connection, signature_id, Signature.parse("question -> answer"), activate=True)
        programs.create(
            connection,
            program_id,
            name="a",
            signature_id=signature_id,
            adapter_type="mock",
            configuration=Configuration(),
        )
        callback = Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET")
        asked = [
            executions.Request(
                uuid7(),
                program_id,
                {"question": "é", "image": "blob:sha256:" + "a" * 64},
                ExecutionOptions(seed=1),
                "/tests",
                idempotency_key=key,
                callback=callback,
            )
            for key in "ab"
        ]
        claimed, _ = executions.claim(connection, executions.Lease("w", 30), asked, now=[True, True])
        assert isinstance(claimed, executions.Claimed)
        trace = executions.Trace(1, [{"kind": "tool", "details": {"result": "é"}}])
        ended = executions.Finish(
            claimed.id, program_id, claimed.lock_version, 1.5, Usage(), {"answer": "b"}, trace=trace
        )
        assert executions.finish(connection, 1, [ended]) == [True]
        (place,) = webhooks.places(connection, "", 10)
        (due,) = webhooks.take(connection, {place: 1}, 30)
        webhooks.settle(connection, [webhooks.Settled(due, DeliveryStatus.PENDING, 5, "it failed", "failed")])
        later = executions.Request(uuid7(), program_id, {}, ExecutionOptions(), "/tests")
        executions.claim(connection, executions.Lease("w", 30), [later], now=[False])
        rejections.record(connection, rejections.Rejection("q", "malformed_message", "not JSON", b"\x00{", 2))
        blob_owners.add(connection, [uuid7()])
        key = {"key": "lane:*:bulk", "tenant": "*", "kind": "lane", "name": "bulk"}
        connection.execute(insert(gates).values(**key, in_flight=1, inserted_at=NOW, updated_at=NOW))
        connection.execute(
            insert(slots).values(gate_key="lane:*:bulk", execution_id=uuid7(), lock_version=1, inserted_at=NOW)
        )
        worker = {"name": "w", "host": "h", "pid": 1, "version": "1", "state": "working", "serves": {"lanes": ["bulk"]}}
        times = dict.fromkeys(("started_at", "seen_at", "lease_expires_at"), NOW)
        connection.execute(insert(workers).values(**worker, **times, places=4, taken=1))
        waiting = counts.Counted("default", program_id)
        counts.came(connection, [waiting, waiting])
        counts.fold(connection, 1)
        counts.went(connection, [waiting])
        connection.execute(insert(early_cancels).values(execution_id=uuid7(), by="login", inserted_at=NOW))


def content(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }
