"""What the version before tenants (migration 0001) has written, and what its workers do to PostgreSQL."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, text

STATUSES = ("pending", "running", "completed", "failed")
FIELDS = '[{"name": "a", "type": {"type": "string"}}]'
USAGE = '{"calls": 1, "input_tokens": 7, "output_tokens": 3, "cost": 0.5}'
ERROR = '{"code": "timeout", "message": "no", "problems": []}'


def fill(engine: Engine) -> UUID:
    """Keep a program with its counters and three executions in every status, of 2^2, 2^3, 2^6, ... 2^11 ms."""
    signature_id, program_id = uuid4(), uuid4()
    body = "'\\x7b'" if engine.dialect.name == "postgresql" else "x'7b'"

    def insert(table: str, **values: object) -> None:
        now = {} if table == "program_counters" else dict.fromkeys(("inserted_at", "updated_at"), "CURRENT_TIMESTAMP")
        columns = {name: _literal(value) for name, value in values.items()} | now
        names, literals = ", ".join(columns), ", ".join(columns.values())
        connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({literals})")

    with engine.begin() as connection:
        insert(
            "signatures",
            id=signature_id,
            name="a",
            module="m",
            version="1.0.0",
            digest="x",
            status="active",
            inputs=FIELDS,
            outputs=FIELDS.replace('"a"', '"b"'),
        )
        insert(
            "programs",
            id=program_id,
            name="a",
            signature_id=signature_id,
            adapter_type="mock",
            status="ready",
            configuration="{}",
            backend_id="backend",
        )
        for number in range(12):
            status = STATUSES[number % 4]
            ended = status in ("completed", "failed")
            insert(
                "executions",
                id=uuid4(),
                program_id=program_id,
                inputs="{}",
                options="{}",
                source="/old",
                request_digest=str(number),
                attempt=1,
                lock_version=3,
                status=status,
                outputs="{}" if status == "completed" else None,
                error=ERROR if status == "failed" else None,
                usage=USAGE if ended else None,
                duration_ms=2.0**number if ended else None,
            )
        insert(
            "program_counters",
            program_id=program_id,
            shard=3,
            completed=3,
            failed=3,
            duration_ms=3276.0,
            input_tokens=42,
            output_tokens=18,
            cost=3.0,
            last_executed_at="2026-01-01 00:00:00.000000",
        )
        insert(
            "rejected_messages",
            id=uuid4(),
            queue="q",
            error_code="c",
            error_message="m",
            body_size=1,
            deliveries=1,
            body=text(body),
        )
    return program_id


def _literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case UUID():
            return f"'{value.hex}'"
        case str():
            return f"'{value}'"
    return str(value)


CLAIM = """
INSERT INTO executions (id, program_id, inputs, options, request_digest, source, traceparent, status, attempt,
    lock_version, worker, lease_expires_at, backend_id, started_at, inserted_at, updated_at)
SELECT records.id, records.program_id, records.inputs, records.options, records.request_digest, records.source,
    records.traceparent, 'running', 1, 1, :worker, clock_timestamp() + make_interval(secs => 30),
    CASE WHEN programs.status = 'ready' THEN programs.backend_id ELSE NULL END,
    clock_timestamp(), clock_timestamp(), clock_timestamp()
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, program_id UUID, inputs JSONB, options JSONB,
    request_digest VARCHAR, source TEXT, traceparent VARCHAR)
JOIN programs ON programs.id = records.program_id
WHERE records.id IS NOT NULL ORDER BY records.id
ON CONFLICT (id) DO UPDATE SET backend_id = excluded.backend_id, attempt = executions.attempt + 1,
    worker = excluded.worker, lease_expires_at = excluded.lease_expires_at, started_at = excluded.started_at,
    status = excluded.status, lock_version = executions.lock_version + 1, updated_at = excluded.updated_at
WHERE executions.request_digest = excluded.request_digest AND (executions.status IN ('pending')
    OR executions.status IN ('running') AND executions.lease_expires_at < clock_timestamp())
RETURNING executions.id, executions.attempt, executions.lock_version, executions.backend_id
"""

FINISH = """
UPDATE executions SET lease_expires_at = NULL, outputs = records.outputs, error = records.error,
    usage = records.usage, duration_ms = records.duration_ms, finished_at = clock_timestamp(),
    status = records.status, lock_version = executions.lock_version + 1, updated_at = clock_timestamp()
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(id UUID, lock_version INTEGER, status VARCHAR,
    outputs JSONB, error JSONB, usage JSONB, duration_ms FLOAT)
WHERE executions.id = records.id AND executions.lock_version = records.lock_version
    AND executions.status || '' = 'running'
RETURNING executions.id, executions.lock_version, executions.status
"""

COUNT = """
INSERT INTO program_counters (program_id, shard, completed, failed, duration_ms, input_tokens, output_tokens, cost,
    last_executed_at, lock_version)
SELECT records.program_id, records.shard, records.completed, records.failed, records.duration_ms,
    records.input_tokens, records.output_tokens, records.cost, clock_timestamp(), coalesce(known.lock_version, 0) + 1
FROM jsonb_to_recordset(CAST(:records AS JSONB)) AS records(program_id UUID, shard INTEGER, completed BIGINT,
    failed BIGINT, duration_ms FLOAT, input_tokens BIGINT, output_tokens BIGINT, cost FLOAT)
LEFT OUTER JOIN program_counters AS known
    ON known.program_id = records.program_id AND known.shard = records.shard
WHERE records.program_id IS NOT NULL ORDER BY records.program_id
ON CONFLICT (program_id, shard) DO UPDATE SET completed = program_counters.completed + excluded.completed,
    failed = program_counters.failed + excluded.failed,
    duration_ms = program_counters.duration_ms + excluded.duration_ms,
    input_tokens = program_counters.input_tokens + excluded.input_tokens,
    output_tokens = program_counters.output_tokens + excluded.output_tokens,
    cost = program_counters.cost + excluded.cost, last_executed_at = excluded.last_executed_at,
    lock_version = excluded.lock_version
WHERE program_counters.lock_version = excluded.lock_version - 1
RETURNING program_counters.program_id
"""


def claim(connection: Connection, program_id: UUID) -> UUID:
    """Take a new execution."""
    execution_id = uuid4()
    request = {
        "id": execution_id.hex,
        "program_id": program_id.hex,
        "inputs": {"question": "é"},
        "options": {},
        "request_digest": "0" * 64,
        "source": "/old",
        "traceparent": None,
    }
    parameters = {"worker": "old", "records": json.dumps([request])}
    [row] = connection.execute(text(CLAIM), parameters)
    assert row == (execution_id, 1, 1, "backend")
    return execution_id


def finish(connection: Connection, program_id: UUID, execution_id: UUID, *, good: bool) -> None:
    """End it, and count it."""
    end = {
        "id": execution_id.hex,
        "lock_version": 1,
        "status": "completed" if good else "failed",
        "outputs": {"answer": "b"} if good else None,
        "error": None if good else {"code": "timeout", "message": "no", "problems": []},
        "usage": {"calls": 1, "input_tokens": 7, "output_tokens": 3, "cost": 0.5 if good else None},
        "duration_ms": 100.0,
    }
    [row] = connection.execute(text(FINISH), {"records": json.dumps([end])})
    assert row == (execution_id, 2, end["status"])
    counts = {
        "program_id": program_id.hex,
        "shard": 1,
        "completed": int(good),
        "failed": int(not good),
        "duration_ms": 100.0,
        "input_tokens": 7,
        "output_tokens": 3,
        "cost": 0.5 if good else 0.0,
    }
    tries = (connection.execute(text(COUNT), {"records": json.dumps([counts])}).all() for _ in range(5))
    assert next(filter(None, tries)) == [(program_id,)]
