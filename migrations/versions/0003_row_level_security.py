"""Row-level security on PostgreSQL, and values for columns of 0002 in older executions.

Run it when no worker from before 0002 is left. Such a worker does not set its tenant, and so would find no rows; this
migration refuses to run while such workers are connected. Stop them first, or replace them by a version that also runs
on 0002.

It fills in error codes, tokens and cost from their JSON, and the histogram of the programs' durations, in batches that
commit one by one. An interrupted upgrade continues where it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

from migrations.steps import LOCK_TIMEOUT, refuse_beside

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0002"

TABLES = ("executions", "program_counters", "program_durations", "programs", "signatures", "rejected_messages")
"""The busiest table is first, so that no other is locked while its lock is waited for."""

POLICY = "tenant = current_setting('dspex.tenant', true) OR current_setting('dspex.tenant', true) = '*'"

SHARD = 64
"""A shard of the histogram that no worker uses, as theirs are lower."""

FIRST, LAST, PER_DOUBLING = -40, 160, 4

FILL = f"""
DO $$
DECLARE
    passed uuid := '00000000-0000-0000-0000-000000000000';
    batch uuid[];
BEGIN
    LOOP
        SELECT array_agg(id ORDER BY id) INTO batch FROM (
            SELECT id FROM executions
            WHERE id > passed AND input_tokens IS NULL AND status IN ('completed', 'failed', 'cancelled')
            ORDER BY id LIMIT 5000
        ) AS due;
        EXIT WHEN batch IS NULL;
        WITH filled AS (
            UPDATE executions SET
                error_code = left(error ->> 'code', 64),
                input_tokens = COALESCE(CAST(usage ->> 'input_tokens' AS bigint), 0),
                output_tokens = COALESCE(CAST(usage ->> 'output_tokens' AS bigint), 0),
                cost = CAST(usage ->> 'cost' AS double precision)
            WHERE id = ANY (batch) AND input_tokens IS NULL
            RETURNING tenant, program_id, status, duration_ms
        ), counted AS (
            SELECT program_id, tenant, CASE
                WHEN duration_ms <= power(2.0, {FIRST / PER_DOUBLING}) THEN {FIRST}
                WHEN duration_ms > power(2.0, {(LAST - 1) / PER_DOUBLING}) THEN {LAST}
                ELSE ceil(ln(duration_ms) / ln(2.0) * {PER_DOUBLING})
            END AS bucket
            FROM filled WHERE status IN ('completed', 'failed') AND duration_ms IS NOT NULL
        )
        INSERT INTO program_durations (program_id, shard, bucket, runs, tenant)
        SELECT program_id, {SHARD}, bucket, count(*), tenant FROM counted GROUP BY program_id, bucket, tenant
        ON CONFLICT (program_id, shard, bucket) DO UPDATE SET runs = program_durations.runs + excluded.runs;
        passed := batch[array_upper(batch, 1)];
        COMMIT;
    END LOOP;
END $$
"""  # noqa: S608


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _fill_sqlite()
        return
    if not context.is_offline_mode():
        refuse_beside({"dspex"}, "would find no rows")
    with op.get_context().autocommit_block():
        op.execute(LOCK_TIMEOUT)
        op.execute(FILL)
        op.execute("ANALYZE executions")
    # In one transaction, so that all tables get it at the same moment.
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({POLICY})")


def downgrade() -> None:
    """The values that were filled in stay."""
    if op.get_context().dialect.name == "sqlite":
        return
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY tenant ON {table}")


def _fill_sqlite() -> None:
    connection = op.get_bind()
    ended = "input_tokens IS NULL AND status IN ('completed', 'failed', 'cancelled')"
    found = connection.execute(
        sa.text(
            f"SELECT program_id, tenant, duration_ms FROM executions WHERE {ended} "  # noqa: S608
            "AND status <> 'cancelled' AND duration_ms IS NOT NULL"
        )
    )
    runs = Counter((program_id, tenant, _bucket(duration)) for program_id, tenant, duration in found)
    for (program_id, tenant, bucket), number in runs.items():
        connection.execute(
            sa.text(
                "INSERT INTO program_durations (program_id, shard, bucket, runs, tenant) "
                "VALUES (:program_id, :shard, :bucket, :runs, :tenant) "
                "ON CONFLICT (program_id, shard, bucket) DO UPDATE SET runs = runs + excluded.runs"
            ),
            {"program_id": program_id, "shard": SHARD, "bucket": bucket, "runs": number, "tenant": tenant},
        )
    connection.execute(
        sa.text(
            "UPDATE executions SET error_code = substr(error ->> '$.code', 1, 64), "  # noqa: S608
            "input_tokens = COALESCE(usage ->> '$.input_tokens', 0), "
            "output_tokens = COALESCE(usage ->> '$.output_tokens', 0), "
            f"cost = usage ->> '$.cost' WHERE {ended}"
        )
    )


def _bucket(milliseconds: float) -> int:
    if milliseconds <= math.exp2(FIRST / PER_DOUBLING):
        return FIRST
    if milliseconds > math.exp2((LAST - 1) / PER_DOUBLING):
        return LAST
    return math.ceil(math.log2(milliseconds) * PER_DOUBLING)
