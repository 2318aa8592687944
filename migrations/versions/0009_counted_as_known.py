"""Completes the number of executions with known tokens and cost, which workers from before 0006 did not count.

Workers keep working while it runs. It adds the difference between the ends in the executions and those in the counters.
Both commit together, so one snapshot shows both, and running it again adds nothing twice.

On PostgreSQL, it reads an index of the executions once, and waits at most 2 s for the counters. If it fails, run it
again.
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves_from: str = "0007"

SHARD = 0

COUNT = f"""
INSERT INTO program_counters
    (program_id, shard, tenant, completed, failed, cancelled, duration_ms, input_tokens, output_tokens, cost,
     tokens_known, cost_known)
SELECT ended.program_id, {SHARD}, ended.tenant, 0, 0, 0, 0, 0, 0, 0,
       ended.tokens - counted.tokens, ended.costs - counted.costs
FROM (SELECT tenant, program_id, count(input_tokens + output_tokens) AS tokens, count(cost) AS costs
      FROM executions WHERE status IN ('completed', 'failed', 'cancelled') GROUP BY tenant, program_id) AS ended
JOIN (SELECT tenant, program_id, sum(tokens_known) AS tokens, sum(cost_known) AS costs
      FROM program_counters GROUP BY tenant, program_id) AS counted
  ON counted.tenant = ended.tenant AND counted.program_id = ended.program_id
WHERE ended.tokens <> counted.tokens OR ended.costs <> counted.costs
ORDER BY ended.program_id, ended.tenant
ON CONFLICT (program_id, shard, tenant) DO UPDATE SET
    tokens_known = program_counters.tokens_known + excluded.tokens_known,
    cost_known = program_counters.cost_known + excluded.cost_known
"""  # noqa: S608


def upgrade() -> None:
    op.execute(COUNT)


def downgrade() -> None:
    """Keep the numbers that were added."""
