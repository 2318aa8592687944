"""Processes that claim and end executions of one program as fast as they can: each is killed at some time."""

from __future__ import annotations

import random
from uuid import UUID

from dspex import ErrorDetail, ExecutionOptions, Usage, uuid7
from store import executions
from store.database.engine import make_engine
from store.executions import Claimed, Finish, Lease, Request

BATCH = 20
ERROR = ErrorDetail(code="timeout", message="as asked for")


def write(database_url: str, program_id: UUID, shard: int, number: int) -> None:
    """Claim so many, end most of them, in batches; the target of a process."""
    engine, rng = make_engine(database_url, pool_size=1), random.Random(shard)
    lease = Lease(f"writer-{shard}", 60)
    for start in range(0, number, BATCH):
        options = ExecutionOptions()
        asked = [Request(uuid7(), program_id, {}, options, "/faults", None) for _ in range(min(BATCH, number - start))]
        with engine.begin() as connection:
            claims = executions.claim(connection, lease, asked, now=[True] * len(asked))
        ends = [_end(program_id, claim, rng) for claim in claims if isinstance(claim, Claimed) and rng.random() < 0.9]
        with engine.begin() as connection:
            executions.finish(connection, shard % 4, ends)
    engine.dispose()


def _end(program_id: UUID, claim: Claimed, rng: random.Random) -> Finish:
    usage = Usage(calls=1, input_tokens=3, output_tokens=2)
    kind = rng.randrange(3)
    return Finish(
        claim.id,
        program_id,
        claim.lock_version,
        12.5,
        usage,
        outputs={"answer": "x", "told": "y"} if kind == 0 else None,
        error=ERROR if kind == 1 else None,
        cancelled=kind == 2,
    )
